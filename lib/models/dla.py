"""Deep Layer Aggregation backbones (Yu et al., CVPR 2018), with the parameter names of the published weights.

Level i has stride 2^i. A tree joins the outputs of its two halves, and of the halves below, in one root.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.schema import one_of


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that the caller may supply."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + (x if shortcut is None else shortcut), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped for the x variants), 1x1, and a shortcut that the caller may supply."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, width: float = 0.5, groups: int = 1
    ) -> None:
        super().__init__()
        inner = int(out_channels * width)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False, groups=groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + (x if shortcut is None else shortcut), inplace=True)


class Root(nn.Module):
    """Concatenates the outputs of a tree and mixes them with a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, residual: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.residual = residual

    def forward(self, *branches: Tensor) -> Tensor:
        y = self.bn(self.conv(torch.cat(branches, 1)))
        return F.relu(y + branches[0] if self.residual else y, inplace=True)


Block = Callable[[int, int, int], nn.Module]


class Tree(nn.Module):
    """``levels`` deep; a level-1 tree is two blocks and a root."""

    def __init__(
        self,
        levels: int,
        block: Block,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        level_root: bool = False,
        root_channels: int = 0,
        root_residual: bool = False,
    ) -> None:
        super().__init__()
        root_channels = (root_channels or 2 * out_channels) + (in_channels if level_root else 0)
        self.level_root = level_root
        self.stride = stride
        if levels == 1:
            self.tree1 = block(in_channels, out_channels, stride)
            self.tree2 = block(out_channels, out_channels, 1)
            self.root: Root | None = Root(root_channels, out_channels, root_residual)
        else:
            self.tree1 = Tree(levels - 1, block, in_channels, out_channels, stride, root_residual=root_residual)
            self.tree2 = Tree(
                levels - 1,
                block,
                out_channels,
                out_channels,
                root_channels=root_channels + out_channels,
                root_residual=root_residual,
            )
            self.root = None
        self.project: nn.Module | None = None
        if in_channels != out_channels:
            self.project = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )
            if levels > 1:
                # published weights hold these, but only level-1 trees use their shortcut
                self.project.requires_grad_(False)

    def forward(self, x: Tensor, children: tuple[Tensor, ...] = ()) -> Tensor:
        bottom = F.max_pool2d(x, self.stride, self.stride) if self.stride > 1 else x
        if self.level_root:
            children = (*children, bottom)
        if self.root is None:
            x1 = self.tree1(x)
            return self.tree2(x1, (*children, x1))
        shortcut = bottom if self.project is None else self.project(bottom)
        x1 = self.tree1(x, shortcut)
        return self.root(self.tree2(x1), x1, *children)


class DLA(nn.Module):
    """Backbone; ``forward`` gives the features of all six levels.

    ``channels``: of each level. The classifier ``fc`` exists for the sake of published weights and is never run.
    """

    def __init__(
        self, levels: tuple[int, ...], channels: tuple[int, ...], block: Block, residual_root: bool = False
    ) -> None:
        super().__init__()
        self.channels = channels
        self.base_layer = nn.Sequential(
            nn.Conv2d(3, channels[0], 7, 1, 3, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)
        )
        self.level0 = _conv_level(channels[0], channels[0], levels[0], 1)
        self.level1 = _conv_level(channels[0], channels[1], levels[1], 2)
        for i in range(2, 6):
            tree = Tree(levels[i], block, channels[i - 1], channels[i], 2, i > 2, root_residual=residual_root)
            setattr(self, f"level{i}", tree)
        self.fc = nn.Conv2d(channels[-1], 1000, 1)
        self.fc.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.fc:
                init_convolution(module)

    def unused_parameters(self) -> tuple[str, ...]:
        """Prefixes of what published files hold but no output depends on, classifier apart; timm leaves them out."""
        trees = [(name, module) for name, module in self.named_modules() if isinstance(module, Tree)]
        return tuple(f"{name}.project." for name, tree in trees if tree.root is None and tree.project is not None)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised RGB -> six maps (B, channels[i], H / 2^i, W / 2^i)."""
        x = self.base_layer(images)
        features = []
        for i in range(6):
            x = getattr(self, f"level{i}")(x)
            features.append(x)
        return features


def init_convolution(conv: nn.Conv2d) -> None:
    """N(0, sqrt(2 / (k k out))), the initial weights of DLA's code."""
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / (conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels)))


def _conv_level(in_channels: int, out_channels: int, convolutions: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(convolutions):
        layers += [
            nn.Conv2d(in_channels if i == 0 else out_channels, out_channels, 3, stride if i == 0 else 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class DLARow:
    """One size of the family."""

    levels: tuple[int, ...]
    channels: tuple[int, ...]
    block: Block
    residual_root: bool = False
    sha256_prefix: str | None = None
    """of the published ImageNet weights, as in their file name; None: there are none"""


_X = partial(Bottleneck, width=1.0, groups=32)
_X2 = partial(Bottleneck, width=2.0, groups=64)
_SMALL, _LARGE = (16, 32, 64, 64, 128, 256), (16, 32, 128, 256, 512, 1024)

BACKBONES: dict[str, DLARow] = {
    # a quarter of dla34's channels at the top: what the quickstart can train on two CPU cores. Not a published size.
    "dla34_narrow": DLARow((1, 1, 1, 2, 2, 1), (16, 16, 32, 64, 64, 128), BasicBlock),
    "dla34": DLARow((1, 1, 1, 2, 2, 1), (16, 32, 64, 128, 256, 512), BasicBlock, sha256_prefix="ba72cf86"),
    "dla46_c": DLARow((1, 1, 1, 2, 2, 1), _SMALL, Bottleneck, sha256_prefix="2bfd52c3"),
    "dla46x_c": DLARow((1, 1, 1, 2, 2, 1), _SMALL, _X, sha256_prefix="d761bae7"),
    "dla60x_c": DLARow((1, 1, 1, 2, 3, 1), _SMALL, _X, sha256_prefix="b870c45c"),
    "dla60": DLARow((1, 1, 1, 2, 3, 1), _LARGE, Bottleneck, sha256_prefix="24839fc4"),
    "dla60x": DLARow((1, 1, 1, 2, 3, 1), _LARGE, _X, sha256_prefix="d15cacda"),
    "dla102": DLARow((1, 1, 1, 3, 4, 1), _LARGE, Bottleneck, True, "d94d9790"),
    "dla102x": DLARow((1, 1, 1, 3, 4, 1), _LARGE, _X, True, "ad62be81"),
    "dla102x2": DLARow((1, 1, 1, 3, 4, 1), _LARGE, _X2, True, "262837b6"),
    "dla169": DLARow((1, 1, 2, 3, 5, 1), _LARGE, Bottleneck, True, "0914e092"),
}


def build_dla(name: str) -> DLA:
    """A row of :data:`BACKBONES`, with random weights. Raises ValueError for an unknown name."""
    one_of("model.backbone", name, tuple(BACKBONES))
    row = BACKBONES[name]
    return DLA(row.levels, row.channels, row.block, row.residual_root)
