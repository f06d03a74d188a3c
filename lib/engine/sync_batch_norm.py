"""BatchNorm over the images of all processes, on the CPU: torch's own SyncBatchNorm runs on GPUs only.

Sums are taken in float64, so that the statistics, and with them all that follows, do not depend on how a batch is
shared out: rounding them in float32 would be enough to flip ReLUs, and to change some gradients by a percent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Total = Callable[[Tensor], Tensor]
"""sum over the processes, with gradient"""


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose training statistics are those of all processes' images; a process may have none.

    Where all have none, it leaves the statistics as they are.
    """

    def __init__(self, of: nn.BatchNorm2d, total: Total) -> None:
        super().__init__(of.num_features, of.eps, of.momentum)
        self.weight, self.bias, self.total = of.weight, of.bias, total
        self.running_mean, self.running_var = of.running_mean, of.running_var
        self.num_batches_tracked = of.num_batches_tracked

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        axes = (0, 2, 3)
        here = torch.tensor([x.numel() // self.num_features], dtype=torch.float64)
        sums_and_count = self.total(torch.cat([x.sum(axes, dtype=torch.float64), here]))
        count = sums_and_count[-1].detach()
        if count == 0:  # no process has an image (dataset.on_bad_frame: skip); a gradient of 0, and nothing learnt
            return x * self.weight[:, None, None] + self.bias[:, None, None]
        dtype = self.running_mean.dtype  # x may be half as wide, under autocast
        mean = (sums_and_count[:-1] / count).to(dtype)
        centered = x - mean[:, None, None]
        variance = (self.total(centered.square().sum(axes, dtype=torch.float64)) / count).to(dtype)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)).to(dtype), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def convert_batch_norm(model: nn.Module, total: Total) -> None:
    """Put a :class:`GlobalBatchNorm2d`, with the same parameters, in the place of every BatchNorm of ``model``."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(model, name, GlobalBatchNorm2d(child, total))
        else:
            convert_batch_norm(child, total)
