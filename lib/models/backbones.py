"""The backbones that ``model.backbone`` can name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..config.checks import require_one_of
from .dla import SIZES, build_dla
from .timm_backbone import build_timm

Builder = Callable[[bool | str], Any]
"""``pretrained`` -> an nn.Module that maps normalised RGB images (B, 3, H, W) to a list of feature maps at strides 4,
8, 16, .. of the image, and whose attribute ``channels`` lists their channels. ``pretrained``: False for random weights,
True for the published ones, or the path of a file; the builder loads them."""

BACKBONES: dict[str, Builder] = {name: partial(build_dla, name) for name in SIZES}


def find_builder(name: str) -> Builder:
    """The builder of ``model.backbone``. Raises ValueError for a name that is neither in BACKBONES nor timm/<name>."""
    if name.startswith("timm/"):
        return partial(build_timm, name.removeprefix("timm/"))
    require_one_of("model.backbone", name, (*BACKBONES, "timm/<name>"))
    return BACKBONES[name]
