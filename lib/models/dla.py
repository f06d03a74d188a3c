"""Deep Layer Aggregation backbones (Yu et al., CVPR 2018), with the parameter names of the published weights.

Level i has stride 2^i; levels 2 to 5 are trees. A tree joins the outputs of its two halves, and those of the trees
inside them, in one root.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pretrained import find_imagenet_weights, load_backbone_weights


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the input, or what the caller passes in its place."""

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
    """1x1, 3x3 (grouped in the x variants) and 1x1 convolution, and a shortcut as in :class:`BasicBlock`."""

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
    """Joins the outputs of a tree: concatenation and a 1x1 convolution."""

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
    """A tree of depth 1 is two blocks and a root, a deeper one is two trees, the second of which has the root.

    ``children_channels``: of what ``forward`` gets as ``children`` beside its input. ``level_root``: the input,
    reduced by ``stride``, is a child too.
    """

    def __init__(
        self,
        depth: int,
        block: Block,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        children_channels: int = 0,
        level_root: bool = False,
        residual_root: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.level_root = stride, level_root
        self.root: Root | None = None
        children_channels += in_channels if level_root else 0
        if depth == 1:
            self.tree1 = block(in_channels, out_channels, stride)
            self.tree2 = block(out_channels, out_channels, 1)
            self.root = Root(2 * out_channels + children_channels, out_channels, residual_root)
        else:
            half = partial(Tree, depth - 1, block, out_channels=out_channels, residual_root=residual_root)
            self.tree1 = half(in_channels, stride=stride)
            self.tree2 = half(out_channels, children_channels=children_channels + out_channels)
        self.project: nn.Module | None = None
        if in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.project = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
            # part of the published weights, but only trees of depth 1 use their shortcut
            self.project.requires_grad_(depth == 1)

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
    """The backbone: depths of the four trees, channels of the six levels.

    ``self.channels`` are those of the maps that ``forward`` returns. The classifier ``fc`` is part of the published
    weights and never runs.
    """

    def __init__(
        self, depths: tuple[int, ...], channels: tuple[int, ...], block: Block, residual_root: bool = False
    ) -> None:
        super().__init__()
        self.channels = channels[2:]
        self.base_layer = _build_conv_bn_relu(3, channels[0], 7, 1)
        self.level0 = _build_conv_bn_relu(channels[0], channels[0], 3, 1)
        self.level1 = _build_conv_bn_relu(channels[0], channels[1], 3, 2)
        for i, depth in enumerate(depths, 2):
            setattr(self, f"level{i}", Tree(depth, block, channels[i - 1], channels[i], 2, 0, i > 2, residual_root))
        self.fc = nn.Conv2d(channels[-1], 1000, 1).requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.fc:
                init_convolution(module)

    def unused_parameters(self) -> tuple[str, ...]:
        """Name prefixes of parameters that no output depends on, classifier apart; timm's weights lack them."""
        trees = [(name, module) for name, module in self.named_modules() if isinstance(module, Tree)]
        return tuple(f"{name}.project." for name, tree in trees if tree.root is None and tree.project is not None)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised RGB -> four maps (B, channels[i], H / 2^(i + 2), W / 2^(i + 2))."""
        x = self.level1(self.level0(self.base_layer(images)))
        maps = []
        for i in range(2, 6):
            x = getattr(self, f"level{i}")(x)
            maps.append(x)
        return maps


def init_convolution(conv: nn.Conv2d) -> None:
    """N(0, sqrt(2 / (k k out))), the initial weights of DLA's published code."""
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / (conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels)))


def _build_conv_bn_relu(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


@dataclass(frozen=True)
class Size:
    """One size of the family: the arguments of :class:`DLA`, and the published ImageNet weights."""

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    block: Block
    residual_root: bool = False
    sha256_prefix: str | None = None  # as in the file name of the weights; None: there are none


_X = partial(Bottleneck, width=1.0, groups=32)
_X2 = partial(Bottleneck, width=2.0, groups=64)
_SMALL, _LARGE = (16, 32, 64, 64, 128, 256), (16, 32, 128, 256, 512, 1024)

SIZES: dict[str, Size] = {
    # for the quickstart, not a published size; by level, dla34's channels or a half or a quarter of them
    "dla34_narrow": Size((1, 2, 2, 1), (16, 16, 32, 64, 64, 128), BasicBlock),
    "dla34": Size((1, 2, 2, 1), (16, 32, 64, 128, 256, 512), BasicBlock, sha256_prefix="ba72cf86"),
    "dla46_c": Size((1, 2, 2, 1), _SMALL, Bottleneck, sha256_prefix="2bfd52c3"),
    "dla46x_c": Size((1, 2, 2, 1), _SMALL, _X, sha256_prefix="d761bae7"),
    "dla60x_c": Size((1, 2, 3, 1), _SMALL, _X, sha256_prefix="b870c45c"),
    "dla60": Size((1, 2, 3, 1), _LARGE, Bottleneck, sha256_prefix="24839fc4"),
    "dla60x": Size((1, 2, 3, 1), _LARGE, _X, sha256_prefix="d15cacda"),
    "dla102": Size((1, 3, 4, 1), _LARGE, Bottleneck, True, "d94d9790"),
    "dla102x": Size((1, 3, 4, 1), _LARGE, _X, True, "ad62be81"),
    "dla102x2": Size((1, 3, 4, 1), _LARGE, _X2, True, "262837b6"),
    "dla169": Size((2, 3, 5, 1), _LARGE, Bottleneck, True, "0914e092"),
}


def build_dla(name: str, pretrained: bool | str = False) -> DLA:
    """A backbone of :data:`SIZES`; see ``lib.models.backbones.Builder``.

    Raises FileNotFoundError or ValueError where ``pretrained`` weights are missing or do not fit.
    """
    size = SIZES[name]
    backbone = DLA(size.depths, size.channels, size.block, size.residual_root)
    if pretrained:
        path = Path(pretrained) if isinstance(pretrained, str) else find_imagenet_weights(name, size.sha256_prefix)
        load_backbone_weights(backbone, path, name, backbone.unused_parameters())
    return backbone
