"""MonoDLE's loss terms as pure functions. B images, N object slots an image; a term without objects is 0.

Objects are masked, not indexed: shapes stay fixed, so the host does not wait for a GPU.

``all_reduce_sum`` sums a tensor over the ranks that share a batch, with gradients. Sums and counts pass through it
before they are divided, so that a term is normalised by the counts of the whole batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SQRT_2 = 1.4142  # with the digits of the published code

Reduction = Callable[[Tensor], Tensor]


def keep_local(value: Tensor) -> Tensor:
    """The reduction of a single process: ``value`` itself."""
    return value


def divide_sums(value: Tensor, count: Tensor, all_reduce_sum: Reduction) -> Tensor:
    """The sum of ``value`` over the ranks, divided by the sum of ``count``, or by 1 where nothing was counted."""
    value, count = all_reduce_sum(torch.stack([value, count.to(value.dtype)]))
    return value / count.clamp(min=1)


def require_one_shape(**tensors: Tensor) -> None:
    """Raise ValueError unless all shapes are equal; torch would broadcast (N, 1) against (N,) to (N, N)."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        found = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"these must have the same shape: {found}")


def require_mask(mask: Tensor, values: Tensor) -> None:
    """Raise ValueError unless ``mask`` is bool and has the shape of ``values`` without the last axis."""
    if mask.dtype != torch.bool or mask.shape != values.shape[:-1]:
        expected = f"a bool mask {tuple(values.shape[:-1])} for values {tuple(values.shape)}"
        raise ValueError(f"expected {expected}, got {mask.dtype} {tuple(mask.shape)}")


def masked_mean(values: Tensor, mask: Tensor, all_reduce_sum: Reduction = keep_local) -> Tensor:
    """Mean of ``values`` (..., C) over the rows where ``mask`` (...) is set and over C; 0 where none is.

    Raises ValueError for a mask of another shape or type.
    """
    require_mask(mask, values)
    mask = mask[..., None].expand_as(values)
    # where, not a product: an infinite value in an empty slot must not make the sum NaN
    return divide_sums(torch.where(mask, values, 0.0).sum(), mask.sum(), all_reduce_sum)


def heatmap_focal_loss(logits: Tensor, target: Tensor, all_reduce_sum: Reduction = keep_local) -> Tensor:
    """CornerNet's focal loss, exponents 2 and 4, divided by the number of object centres (cells that are exactly 1).

    ``logits``, ``target``: (B, C, h, w). The probability is clamped to [1e-4, 1 - 1e-4], as in CenterNet's code.
    """
    require_one_shape(logits=logits, target=target)
    probability = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    is_center = target == 1
    at_centers = torch.where(is_center, probability.log() * (1 - probability) ** 2, 0.0).sum()
    elsewhere = torch.where(is_center, 0.0, (1 - probability).log() * probability**2 * (1 - target) ** 4).sum()
    return divide_sums(-(at_centers + elsewhere), is_center.sum(), all_reduce_sum)


def l1_loss(prediction: Tensor, target: Tensor, mask: Tensor, all_reduce_sum: Reduction = keep_local) -> Tensor:
    """Mean absolute error of (B, N, C) over the masked objects and C."""
    require_one_shape(prediction=prediction, target=target)
    return masked_mean((prediction - target).abs(), mask, all_reduce_sum)


def laplacian_depth_loss(
    depth: Tensor, log_variance: Tensor, target: Tensor, mask: Tensor, all_reduce_sum: Reduction = keep_local
) -> Tensor:
    """1.4142 exp(-s) |d - d*| + s: depth with a predicted Laplacian uncertainty (MonoDLE, section 3.2 and supplement).

    ``depth``, ``log_variance``, ``target``: (..., 1) [m], s, [m]; ``mask``: (...).
    """
    require_one_shape(depth=depth, log_variance=log_variance, target=target)
    require_mask(mask, target)
    # exp(-s) of an empty slot may overflow, and would then bring 0 * inf = NaN into the gradient
    log_variance = torch.where(mask[..., None], log_variance, 0.0)
    return masked_mean(SQRT_2 * (-log_variance).exp() * (depth - target).abs() + log_variance, mask, all_reduce_sum)


def dimension_aware_l1_loss(
    prediction: Tensor, target: Tensor, size: Tensor, mask: Tensor, all_reduce_sum: Reduction = keep_local
) -> Tensor:
    """Size error relative to the size itself, rescaled to the value of the L1 loss (MonoDLE, section 3.6, eq. 6).

    The value is the mean absolute error; only the distribution of the gradient over objects and axes differs.
    ``prediction``, ``target``: (B, N, 3) [m; h, w, l]; ``size``: (B, N, 3) [m], the true sizes, > 0 where masked.
    """
    require_one_shape(prediction=prediction, target=target, size=size)
    require_mask(mask, target)
    error = (prediction - target).abs()
    relative = masked_mean(error / torch.where(mask[..., None], size, 1.0), mask, all_reduce_sum)
    with torch.no_grad():
        rescale = masked_mean(error, mask, all_reduce_sum) / relative.clamp(min=1e-12)
    return relative * rescale


def heading_loss(
    heading: Tensor, target_bin: Tensor, target_res: Tensor, mask: Tensor, all_reduce_sum: Reduction = keep_local
) -> Tensor:
    """Cross entropy of the 12 bins plus L1 of the true bin's residual.

    ``heading``: (B, N, 24), 12 logits then 12 residuals [rad]; ``target_bin``, ``target_res``: (B, N, 1) int64, [rad].
    """
    logits, residuals = heading.chunk(2, dim=2)
    entropy = F.cross_entropy(logits.transpose(1, 2), target_bin[..., 0], reduction="none")
    entropy_term = masked_mean(entropy[..., None], mask, all_reduce_sum)
    return entropy_term + l1_loss(residuals.gather(2, target_bin), target_res, mask, all_reduce_sum)
