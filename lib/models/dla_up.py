"""DLAUp: iterative deep aggregation of a pyramid, coarse to fine, up to its finest level (CenterNet's neck).

Parameter names are those of official checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dla import init_convolution


class ConvBNReLU(nn.Module):
    """3x3 convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        init_convolution(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Depthwise transposed convolution by ``factor`` that starts as bilinear interpolation and is learnt."""
    up = nn.ConvTranspose2d(
        channels, channels, 2 * factor, stride=factor, padding=factor // 2, groups=channels, bias=False
    )
    ramp = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        up.weight.copy_((ramp[:, None] * ramp[None, :]).expand_as(up.weight))
    return up


class IDAUp(nn.Module):
    """Brings maps 1.. of a list to the first one's channels and size, each joined with its finer neighbour."""

    def __init__(self, channels: int, in_channels: list[int], factors: list[int]) -> None:
        super().__init__()
        for i in range(1, len(in_channels)):
            setattr(self, f"proj_{i}", ConvBNReLU(in_channels[i], channels))
            setattr(self, f"up_{i}", bilinear_upsampling(channels, factors[i]))
            setattr(self, f"node_{i}", ConvBNReLU(2 * channels, channels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        result = [maps[0]]
        for i in range(1, len(maps)):
            coarse = getattr(self, f"up_{i}")(getattr(self, f"proj_{i}")(maps[i]))
            result.append(getattr(self, f"node_{i}")(torch.cat([result[-1], coarse], 1)))
        return result


class DLAUp(nn.Module):
    """``in_channels``: of the pyramid's levels, fine to coarse, each half the size of the one before."""

    def __init__(self, in_channels: list[int]) -> None:
        super().__init__()
        self.out_channels = in_channels[0]
        channels, strides = list(in_channels), [2**i for i in range(len(in_channels))]
        self.steps = len(channels) - 1
        for i in range(self.steps):
            j = len(channels) - 2 - i
            factors = [s // strides[j] for s in strides[j:]]
            setattr(self, f"ida_{i}", IDAUp(in_channels[j], channels[j:], factors))
            # what is coarser than level j now has that level's channels and size
            channels[j:] = [in_channels[j]] * len(channels[j:])
            strides[j:] = [strides[j]] * len(strides[j:])

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Maps (B, in_channels[i], H / 2^i, W / 2^i) -> (B, in_channels[0], H, W)."""
        maps = list(pyramid)
        for i in range(self.steps):
            j = len(maps) - 2 - i
            maps[j:] = getattr(self, f"ida_{i}")(maps[j:])
        return maps[-1]
