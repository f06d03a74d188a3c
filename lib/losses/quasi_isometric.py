r"""The (K, B, eps)-quasi-isometric loss of DDML (Kim et al., NeurIPS 2023, section 3.2).

Descriptors f should keep depth distances: for objects i, j with d_z = |z_i - z_j| <= eps,

    d_z / K - B  <=  d_f = ||f_i - f_j||  <=  K d_z + B.

``u = d_f - K d_z - B`` and ``l = d_z / K - d_f - B`` are how far a pair is beyond the upper and the lower bound.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.feature_map import gather_windows

MIN_DEPTH_DISTANCE = 1e-12
"""pairs of equal depth do not count (official code)"""
DESCRIPTOR_WINDOW = 5
NOTHING = 1e30
"""minus the logarithm of 0, as good as; a true infinity would make NaN gradients"""


def object_descriptors(features: Tensor, indices: Tensor) -> Tensor:
    """5x5 average of the neck's features around each cell, zeros outside the map counted.

    (B, C, h, w), (B, K) -> (B, K, C).
    """
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
) -> Tensor:
    r"""Quasi-isometric loss over all pairs i < j of a batch.

    With U the pairs beyond the upper bound, L those beyond the lower, T the temperature:

    ``official``, as measured on the published code:

        0.5 * mean over U of -log( exp(-u/T) / (exp(-u/T) + N) ),   N = sum over L of exp(-l/T)

    Minimising it lowers N, so *raises* l: pairs that are too close are pulled closer still. And it is exactly 0,
    gradient too, unless the batch holds violators of both bounds.

    ``corrected``: the same comparison, -log(exp(-v/T) / (exp(-v/T) + n)), with two repairs. The partner n of a
    violator is no longer the other set but a pair that lies on the violated bound (v = 0, so n = exp(0) = 1): a set
    of violators never needs the other one. And L gets the term that U has, in its own v = l, so that its violators
    are compared the right way round. Less the value at the bound, log 2, that is

        0.5 * ( mean over U of log((1 + exp(u/T)) / 2)  +  mean over L of log((1 + exp(l/T)) / 2) )

    d(loss)/d(d_f) = +0.5 sigmoid(u/T) / (T |U|) > 0 for a pair that is too far apart (descent pulls it together) and
    -0.5 sigmoid(l/T) / (T |L|) < 0 for one that is too close (descent pushes it apart); it is 0 when nothing is
    violated. In both forms the second object of a pair gets no gradient (official).

    Args:
        descriptors: (N, C). depths: (N,) [m]. mask: (N,) bool, objects that count.
        K, B: slope and slack of the bounds. max_depth_distance: the paper's eps, ``rad`` in the YAML [m].

    Returns:
        scalar; 0 where no pair violates what the formula needs.
    """
    # cdist without its matrix-product shortcut: exact for close pairs, and its gradient at distance 0 is 0, not NaN
    feature_distance = torch.cdist(descriptors, descriptors.detach(), compute_mode="donot_use_mm_for_euclid_dist")
    depth_distance = (depths[:, None] - depths[None, :]).abs()
    pairs = torch.triu(mask[:, None] & mask[None, :], diagonal=1)
    pairs = pairs & (depth_distance > MIN_DEPTH_DISTANCE) & (depth_distance <= max_depth_distance)
    upper = feature_distance - K * depth_distance - B
    lower = depth_distance / K - feature_distance - B
    too_far, too_close = pairs & (upper > 0), pairs & (lower > 0)
    if lower_bound == "corrected":
        return 0.5 * (_logistic(upper / temperature, too_far) + _logistic(lower / temperature, too_close))
    # -log(e^(-u/T) / (e^(-u/T) + N)) = softplus(u/T + log N), which nothing can overflow. Both where()s are before the
    # exponentials: after them, a pair that does not count could still bring 0 * inf = NaN into the gradient.
    negatives = torch.where(too_close, -lower / temperature, -NOTHING).flatten().logsumexp(0)
    excess = torch.where(too_far, upper / temperature, 0.0)
    return 0.5 * _mean_where(F.softplus(excess + negatives), too_far)


def _logistic(excess: Tensor, where: Tensor) -> Tensor:
    return _mean_where(F.softplus(torch.where(where, excess, 0.0)) - math.log(2), where)


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)
