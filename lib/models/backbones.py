"""The backbones that ``model.backbone`` can name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .dla import SIZES, build_dla

Builder = Callable[[bool | str], Any]
"""``pretrained`` -> an nn.Module that maps normalised RGB images (B, 3, H, W) to a list of feature maps at strides 4,
8, 16, .. of the image, and whose attribute ``channels`` lists their channels. ``pretrained``: False for random weights,
True for the published ones, or the path of a file; the builder loads them."""

BACKBONES: dict[str, Builder] = {name: partial(build_dla, name) for name in SIZES}
