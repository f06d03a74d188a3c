"""DLAUp, the neck of CenterNet: iterative deep aggregation of feature maps, from coarse to fine.

Parameter names are those of official checkpoints.
"""

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


def build_upsampling(channels: int) -> nn.ConvTranspose2d:
    """Depthwise transposed convolution to twice the size, initialised as bilinear interpolation."""
    up = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=channels, bias=False)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        up.weight.copy_((ramp[:, None] * ramp[None, :]).expand_as(up.weight))
    return up


class IDAUp(nn.Module):
    """Joins a map with ``coarse_maps`` maps of half its size, one after the other."""

    def __init__(self, channels: int, coarse_channels: int, coarse_maps: int) -> None:
        super().__init__()
        for i in range(1, coarse_maps + 1):
            setattr(self, f"proj_{i}", ConvBNReLU(coarse_channels, channels))
            setattr(self, f"up_{i}", build_upsampling(channels))
            setattr(self, f"node_{i}", ConvBNReLU(2 * channels, channels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The fine map (B, channels, H, W) and the coarse ones -> as many maps, all of the fine one's shape."""
        result = [maps[0]]
        for i in range(1, len(maps)):
            upsampled = getattr(self, f"up_{i}")(getattr(self, f"proj_{i}")(maps[i]))
            result.append(getattr(self, f"node_{i}")(torch.cat([result[-1], upsampled], 1)))
        return result


class DLAUp(nn.Module):
    """``channels``: of the maps from fine to coarse; each has half the size of the one before."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.out_channels, self.steps = channels[0], len(channels) - 1
        for i in range(self.steps):
            j = self.steps - 1 - i  # the maps after it have the channels and the size of map j + 1 by now
            setattr(self, f"ida_{i}", IDAUp(channels[j], channels[j + 1], i + 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, channels[i], H / 2^i, W / 2^i) -> (B, channels[0], H, W)."""
        maps = list(maps)
        for i in range(self.steps):
            j = self.steps - 1 - i
            maps[j:] = getattr(self, f"ida_{i}")(maps[j:])
        return maps[-1]
