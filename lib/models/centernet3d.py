"""MonoDLE's detector: a backbone, DLAUp and seven heads; and DDML's object-wise depth head.

B images, K cells an image, C channels, h x w the stride-4 map. Parameter names are those of official checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config, find_file
from ..ops.feature_map import find_peaks, gather_windows
from ..ops.heads import OBJECT_HEADS
from .backbones import find_builder
from .dla_up import DLAUp
from .pretrained import IMAGE_MEAN, IMAGE_STD

HEAD_CHANNELS = 256


class CenterNet3D(nn.Module):
    """Images -> heatmap, and each object head at given cells (training) or at the heatmap's peaks (inference)."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, backbone: nn.Module, neck: DLAUp, num_class: int, obj_depth: bool) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.heatmap = _build_head(neck.out_channels, num_class)
        for name, head in OBJECT_HEADS.items():
            setattr(self, name, _build_head(neck.out_channels, head.channels))
        self.obj_depth = _build_head(neck.out_channels, 2) if obj_depth else None
        nn.init.constant_(self.heatmap.get_parameter("2.bias"), -2.19)  # CenterNet: sigmoid(-2.19) = 0.1
        for built in [getattr(self, name) for name in OBJECT_HEADS] + ([self.obj_depth] if self.obj_depth else []):
            for layer in (built[0], built[2]):
                nn.init.normal_(layer.weight, std=0.001)
                nn.init.zeros_(layer.bias)
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor, indices: Tensor | None = None, topk: int = 50) -> dict[str, Tensor]:
        """One pass.

        Args:
            images: (B, 3, H, W), RGB; uint8 is normalised here, floats must be normalised already.
            indices: (B, K) int64 cells, ``y * w + x``, to evaluate the object heads at (training). None: the ``topk``
                best peaks of the heatmap (inference).

        Returns:
            heatmap (B, num_class, h, w) logits; features (B, C, h, w); indices (B, K);
            offset_2d, size_2d, offset_3d (B, K, 2) [cells]; depth (B, K, 2) raw depth and log variance;
            size_3d (B, K, 3) [m]; heading (B, K, 24) 12 bin logits, 12 residuals [rad];
            with ``indices``, where the head exists, obj_depth (B, 2, h, w) raw depth and log variance;
            without, scores (B, K) in 0..1 and classes (B, K) int64 of the peaks.
        """
        features = self.extract_features(images)
        outputs = {"heatmap": self.heatmap(features), "features": features}
        if indices is None:
            scores, classes, indices = find_peaks(outputs["heatmap"], topk)
            outputs |= {"scores": scores, "classes": classes}
        elif self.obj_depth is not None:
            outputs["obj_depth"] = self.obj_depth(features)
        return outputs | {"indices": indices} | self.object_heads(features, indices)

    def extract_features(self, images: Tensor) -> Tensor:
        """The neck's features, which all heads read: images as in :meth:`forward` -> (B, C, h, w)."""
        if not images.is_floating_point():
            images = images.to(self.image_mean.dtype).sub_(self.image_mean).div_(self.image_std)
        return self.neck(self.backbone(images))

    def object_heads(self, features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """The object heads at cells: (B, C, h, w), (B, K) -> name: (B, K, channels).

        Equal to running each head on the whole map and reading it at the cells. Here the heads' 3x3 convolutions are
        one matrix product on the neighbourhoods of the K cells (``tools/bench/network.py`` times both).
        """
        heads = [getattr(self, name) for name in OBJECT_HEADS]
        with torch.autocast(features.device.type, enabled=False):  # depths need more than bfloat16's 8 bits
            windows = gather_windows(features.to(heads[0][0].weight.dtype), indices, 3).flatten(2)
            weight = torch.cat([head[0].weight.flatten(1) for head in heads])
            bias = torch.cat([head[0].bias for head in heads])
            hidden = F.relu(F.linear(windows, weight, bias)).split(HEAD_CHANNELS, dim=2)
            return {
                # permuted: the gradient then has the strides of channels-last weights, which DDP asks for
                name: F.linear(h, head[2].weight.permute(0, 2, 3, 1).flatten(1), head[2].bias)
                for name, head, h in zip(OBJECT_HEADS, heads, hidden, strict=True)
            }


def _build_head(in_channels: int, out_channels: int) -> nn.Sequential:
    hidden = nn.Conv2d(in_channels, HEAD_CHANNELS, 3, padding=1)
    return nn.Sequential(hidden, nn.ReLU(inplace=True), nn.Conv2d(HEAD_CHANNELS, out_channels, 1))


def build_model(config: Config, pretrained: bool | str = False) -> CenterNet3D:
    """The model that a config describes, with random weights but for the backbone's where ``pretrained`` is set.

    ``pretrained``: False; True for published ImageNet weights; or the path of a file with the backbone's weights.
    ``config.model.pretrained`` is not read: a checkpoint replaces all weights in any case.

    Raises ValueError for a backbone or weights that cannot be used, FileNotFoundError for weights that are not there.
    """
    build_backbone = find_builder(config.model.backbone)
    if isinstance(pretrained, str):
        pretrained = str(find_file(pretrained, "model.pretrained"))
    backbone = build_backbone(pretrained)
    neck = DLAUp(tuple(backbone.channels))
    return CenterNet3D(backbone, neck, len(config.dataset.class_names), config.general.obj_depth)
