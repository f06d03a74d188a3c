r"""DDML's (K, B, eps)-quasi-isometric loss (Wonhyeok Choi, Mingyu Shin and Sunghoon Im, NeurIPS 2023).

Distances between descriptors f should follow depth distances: for objects i, j with d_z = |z_i - z_j| <= eps,

    d_z / K - B  <=  d_f = ||f_i - f_j||  <=  K d_z + B.

``u = d_f - K d_z - B`` and ``l = d_z / K - d_f - B`` are the excess of a pair over the upper and the lower bound.
The formulas are those of the published code, whose values are in ``tests/data``; the paper was not at hand.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.schema import LOWER_BOUNDS
from ..ops.feature_map import gather_windows

MIN_DEPTH_DISTANCE = 1e-12  # pairs of equal depth are left out, as in the published code [m]
DESCRIPTOR_WINDOW = 5
NEGLIGIBLE_LOG = -1e30  # used in place of log 0 = -inf, which would make gradients NaN


def object_descriptors(features: Tensor, indices: Tensor) -> Tensor:
    """5x5 average of features around cells, zeros outside the map: (B, C, h, w), (B, K) int64 -> (B, K, C).

    Raises ValueError for other shapes. A cell is y * w + x; the caller sees to it that it lies inside the map.
    """
    if len(features.shape) != 4 or len(indices.shape) != 2 or features.shape[0] != indices.shape[0]:
        found = f"{tuple(features.shape)} and {tuple(indices.shape)}"
        raise ValueError(f"expected features (B, C, h, w) and cells (B, K), got {found}")
    return gather_windows(features, indices, DESCRIPTOR_WINDOW).mean(dim=3)


def quasi_isometric_loss(
    descriptors: Tensor,
    depths: Tensor,
    mask: Tensor,
    K: float = 1.5,
    B: float = 0.5,
    max_depth_distance: float = 10.0,
    temperature: float = 10.0,
    lower_bound: str = "official",
    fit_scale: bool = False,
) -> Tensor:
    r"""Quasi-isometric loss over all pairs i < j of a batch.

    U are the pairs above the upper bound, L those below the lower bound, T the temperature. ``docs/method.md`` has the
    gradients and the reasons.

    ``official``, as measured on the published code; 0, its gradient too, unless the batch has pairs in both U and L:

        0.5 * mean over U of -log( exp(-u/T) / (exp(-u/T) + N) ),   N = sum over L of exp(-l/T)

    ``corrected``: pairs in L are pushed apart instead of together, and neither set needs the other:

        0.5 * ( mean over U of log((1 + exp(u/T)) / 2)  +  mean over L of log((1 + exp(l/T)) / 2) )

    In both forms the second object of a pair gets no gradient, as in the published code.

    ``fit_scale``: the bounds are those of s ||f_i - f_j||, with s = sum(d_z d_f) / sum(d_f^2) over the pairs, the least
    squares fit, a constant in the gradient. Not in the published code.

    ``descriptors``: (N, C); ``depths``: (N,) [m]; ``mask``: (N,) bool, objects that count; ``K``, ``B``: slope and
    slack of the bounds; ``max_depth_distance``: eps, ``general.rad`` [m]. Returns a scalar. Raises ValueError for other
    shapes, a mask that is not bool, and an unknown ``lower_bound``.
    """
    shapes = {"descriptors": descriptors.shape, "depths": depths.shape, "mask": mask.shape}
    if len(descriptors.shape) != 2 or not depths.shape == mask.shape == descriptors.shape[:1]:
        found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"expected descriptors (N, C), depths (N,) and mask (N,), got {found}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be of type bool, got {mask.dtype}")
    if lower_bound not in LOWER_BOUNDS:
        raise ValueError(f"lower_bound must be one of {', '.join(LOWER_BOUNDS)}, got {lower_bound!r}")
    # without the matrix product: exact for close pairs, and the gradient at distance 0 is 0, not NaN
    feature_distance = torch.cdist(descriptors, descriptors.detach(), compute_mode="donot_use_mm_for_euclid_dist")
    depth_distance = (depths[:, None] - depths[None, :]).abs()
    pairs = torch.triu(mask[:, None] & mask[None, :], diagonal=1)
    pairs = pairs & (depth_distance > MIN_DEPTH_DISTANCE) & (depth_distance <= max_depth_distance)
    if fit_scale:
        feature_distance = feature_distance * fitted_scale(feature_distance.detach(), depth_distance, pairs)
    upper = feature_distance - K * depth_distance - B
    lower = depth_distance / K - feature_distance - B
    too_far, too_close = pairs & (upper > 0), pairs & (lower > 0)
    if lower_bound == "corrected":
        return 0.5 * (_logistic_excess(upper / temperature, too_far) + _logistic_excess(lower / temperature, too_close))
    # -log(e^(-u/T) / (e^(-u/T) + N)) = softplus(u/T + log N), which cannot overflow. Both where()s come before the
    # exponentials: after them, a masked pair could still bring 0 * inf = NaN into the gradient.
    negatives = torch.where(too_close, -lower / temperature, NEGLIGIBLE_LOG).flatten().logsumexp(0)
    excess = torch.where(too_far, upper / temperature, 0.0)
    return 0.5 * _mean_where(F.softplus(excess + negatives), too_far)


def fitted_scale(feature_distance: Tensor, depth_distance: Tensor, where: Tensor) -> Tensor:
    """The factor s for which s * feature_distance is nearest to depth_distance ``where``; 1 if no factor helps."""
    d_f, d_z = torch.where(where, feature_distance, 0.0), torch.where(where, depth_distance, 0.0)
    squares = (d_f**2).sum()
    return torch.where(squares > 0, (d_f * d_z).sum() / squares, 1.0)


def _logistic_excess(excess: Tensor, where: Tensor) -> Tensor:
    return _mean_where(F.softplus(torch.where(where, excess, 0.0)) - math.log(2), where)


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)
