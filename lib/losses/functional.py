"""The terms of MonoDLE as pure functions. N = objects (slots), masked; a term without objects is 0.

Masks instead of indexing: shapes stay fixed, so a GPU never has to wait for the host.

``total`` is what makes a term that of a batch which several processes share: it sums a tensor over them. Sums and
counts pass through it before they are divided, so that the normalisation is by the counts of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SQRT_2 = 1.4142
"""as the official code has it"""

Total = Callable[[Tensor], Tensor]


def alone(value: Tensor) -> Tensor:
    """The ``total`` of a single process."""
    return value


def quotient(value: Tensor, count: Tensor, total: Total) -> Tensor:
    """Sum of ``value`` over the processes by that of ``count``, or by 1 where nothing was counted."""
    value, count = total(torch.stack([value, count.to(value.dtype)]))
    return value / count.clamp(min=1)


def masked_mean(values: Tensor, mask: Tensor, total: Total = alone) -> Tensor:
    """Mean of ``values`` (..., C) over the rows where ``mask`` (...) is set and over C; 0 where none is."""
    mask = mask[..., None].expand_as(values)
    # where, not a product: an infinite value in an empty slot must not make the sum NaN
    return quotient(torch.where(mask, values, 0.0).sum(), mask.sum(), total)


def heatmap_focal_loss(logits: Tensor, target: Tensor, total: Total = alone) -> Tensor:
    """CornerNet's focal loss, exponents 2 and 4, over the number of object centres (cells that are exactly 1).

    Args:
        logits, target: (B, C, h, w). The probability is clamped to [1e-4, 1 - 1e-4], as CenterNet does.
    """
    probability = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    is_center = target == 1
    at_centers = torch.where(is_center, probability.log() * (1 - probability) ** 2, 0.0).sum()
    elsewhere = torch.where(is_center, 0.0, (1 - probability).log() * probability**2 * (1 - target) ** 4).sum()
    # without any centre the sum is not divided; clamp(min=1) does just that
    return quotient(-(at_centers + elsewhere), is_center.sum(), total)


def l1_loss(prediction: Tensor, target: Tensor, mask: Tensor, total: Total = alone) -> Tensor:
    """Mean absolute error of (B, N, C) over the masked objects and C."""
    return masked_mean((prediction - target).abs(), mask, total)


def laplacian_depth_loss(
    depth: Tensor, log_variance: Tensor, target: Tensor, mask: Tensor, total: Total = alone
) -> Tensor:
    """1.4142 exp(-s) |d - d*| + s: depth with a learnt Laplacian uncertainty (MonoPair, MonoDLE section 3.3).

    Args:
        depth, log_variance, target: (..., 1) [m], [log m], [m]. mask: (...).
    """
    # an empty slot's exp(-s) may overflow, and would then bring 0 * inf = NaN into the gradient
    log_variance = torch.where(mask[..., None], log_variance, 0.0)
    return masked_mean(SQRT_2 * (-log_variance).exp() * (depth - target).abs() + log_variance, mask, total)


def dimension_aware_l1_loss(
    prediction: Tensor, target: Tensor, size: Tensor, mask: Tensor, total: Total = alone
) -> Tensor:
    """Size error relative to the size itself, rescaled to the plain L1 loss's value (MonoDLE section 3.4).

    The value is the mean absolute error; only the gradient's distribution over objects and axes differs.

    Args:
        prediction, target: (B, N, 3) [m; h, w, l]. size: (B, N, 3) [m], the true sizes, > 0 where masked.
    """
    error = (prediction - target).abs()
    relative = masked_mean(error / torch.where(mask[..., None], size, 1.0), mask, total)
    with torch.no_grad():
        rescale = masked_mean(error, mask, total) / relative.clamp(min=1e-12)
    return relative * rescale


def heading_loss(
    heading: Tensor, target_bin: Tensor, target_residual: Tensor, mask: Tensor, total: Total = alone
) -> Tensor:
    """Cross entropy of the 12 bins plus L1 of the true bin's residual.

    Args:
        heading: (B, N, 24), 12 logits then 12 residuals [rad]. target_bin: (B, N, 1) int64. target_residual: (B, N, 1).
    """
    logits, residuals = heading.chunk(2, dim=2)
    entropy = F.cross_entropy(logits.transpose(1, 2), target_bin[..., 0], reduction="none")
    residual = residuals.gather(2, target_bin)
    return masked_mean(entropy[..., None], mask, total) + l1_loss(residual, target_residual, mask, total)
