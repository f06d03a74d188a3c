"""Networks of the package timm as backbones: ``model.backbone: timm/<name>``."""

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .pretrained import IMAGE_MEAN, IMAGE_STD, load_backbone_weights

STRIDES = [4, 8, 16, 32]
_PROBE_SIZE = (96, 64)  # width and height [px] of an image that shows which maps a network gives


class TimmBackbone(nn.Module):
    """Feature maps of a timm network at strides 4 to 32. ``self.channels`` are theirs."""

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, channels: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.net, self.channels = net, channels
        scale, offset = torch.tensor(IMAGE_STD) / torch.tensor(std), torch.tensor(IMAGE_MEAN) - torch.tensor(mean)
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (offset / torch.tensor(std)).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), RGB normalised for DLA -> maps (B, channels[i], H / 2^(i + 2), W / 2^(i + 2)).

        Some networks of timm were trained with another mean and standard deviation; the images are converted to it.
        """
        return list(self.net(images * self.scale + self.shift))


def build_timm(name: str, pretrained: bool | str = False) -> TimmBackbone:
    """The network ``name`` of timm; see ``lib.models.backbones.Builder``. timm downloads published weights itself.

    Raises ValueError without timm, for an unknown network or one without feature maps at strides 4 to 32, and for
    weights of another network; FileNotFoundError for weights that cannot be had.
    """
    try:
        import timm
    except ImportError:
        raise ValueError(f"model.backbone: timm/{name} needs the package timm: pip install timm") from None
    architecture = name.partition(".")[0]  # after the point: which weights
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 1)
        hint = f"; did you mean timm/{near[0]}?" if near else "; timm.list_models() lists all"
        raise ValueError(f"model.backbone: timm has no network {name!r}{hint}")
    try:
        indices = _find_maps(timm.create_model(name, features_only=True))
    except MemoryError:
        raise
    except Exception as error:  # timm's networks raise many kinds where they do not fit
        raise ValueError(f"model.backbone: timm/{name} cannot be used: {error}") from None
    options: dict[str, Any] = {"pretrained": bool(pretrained)}
    if isinstance(pretrained, str):
        whole: Any = timm.create_model(name)  # timm itself takes weights of another network without an error
        load_backbone_weights(whole, Path(pretrained), f"timm/{name}")
        options["pretrained_cfg_overlay"] = {"state_dict": whole.state_dict()}
    advice = "name a file in model.pretrained, or train from scratch: model.pretrained=false"
    try:
        network: Any = timm.create_model(name, features_only=True, out_indices=indices, **options)
    except OSError as error:
        raise FileNotFoundError(f"timm could not download weights of {name} ({error}); {advice}") from None
    except RuntimeError as error:
        raise ValueError(f"model.pretrained: timm has no weights of {name} ({error}); {advice}") from None
    config = network.pretrained_cfg
    return TimmBackbone(network, tuple(network.feature_info.channels()), config["mean"], config["std"])


def _find_maps(network: Any) -> list[int]:
    """Indices of the maps at :data:`STRIDES`, of a small image. Raises ValueError where a map is missing."""
    width, height = _PROBE_SIZE
    strides, channels = network.feature_info.reduction(), network.feature_info.channels()
    if not set(STRIDES) <= set(strides):
        raise ValueError(f"its feature maps have strides {strides}, needed are {STRIDES}")
    with torch.no_grad():
        maps = network.eval()(torch.zeros(1, 3, height, width))
    indices = [strides.index(stride) for stride in STRIDES]
    for k in indices:
        if maps[k].shape[1:] != (channels[k], height // strides[k], width // strides[k]):
            raise ValueError(f"an image of {width} x {height} gives a map {tuple(maps[k].shape[1:])}")
    return indices
