"""The other side of the comparisons: the same work done plainly, in the way of the official code.

Written for the benches. It shares what both sides must do alike (targets, losses, backbone) and does the rest as the
official code does it: PIL decodes and warps, numpy normalises to float32, every head runs on the whole map, all maps
of object depth are read whole, every detection is decoded by itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lib.config import Config
from lib.datasets.augmentation import Augmentation
from lib.datasets.kitti import KITTI
from lib.datasets.targets import encode_targets
from lib.models import CenterNet3D, build_model
from lib.models.centernet3d import IMAGE_MEAN, IMAGE_STD, OBJECT_HEADS
from lib.ops.feature_map import STRIDE, find_peaks, gather_cells, resize_align_corners


def plain_sample(
    frames: KITTI, index: int, rng: np.random.Generator, config: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Frame ``index`` -> (3, H, W) float32, normalised, and its targets."""
    c, frame_id = config.dataset, frames.frame_ids[index]
    texts = frames.texts[index]
    assert not isinstance(texts, Exception), "the bench's own frames are sound"
    calibration, objects = texts
    image = Image.open(frames.image_dir / f"{frame_id}.png").convert("RGB")
    augmentation = Augmentation.sample(rng, image.size, c.random_flip, c.random_crop, c.scale, c.shift)
    if augmentation.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    to_input = augmentation.to_input(c.resolution)
    step = 1 / to_input.scale
    inverse = (step, 0, -to_input.shift_x * step, 0, step, -to_input.shift_y * step)
    image = image.transform(c.resolution, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    pixels = np.array(image).astype(np.float32) / np.float32(255)
    array: np.ndarray = (pixels - np.array(IMAGE_MEAN, np.float32)) / np.array(IMAGE_STD, np.float32)
    targets = {
        name: torch.from_numpy(value)
        for name, value in encode_targets(objects, calibration, augmentation, c).items()
    }
    if frames.obj_depth_dir is not None:
        depth_map = np.load(frames.obj_depth_dir / f"{frame_id}.npy")
        width, height = c.resolution
        depth_net = torch.from_numpy(augmentation.depth_map(depth_map, c.resolution))
        targets["obj_depth"] = resize_align_corners(depth_net[None, None], height // STRIDE, width // STRIDE)[0]
    return torch.from_numpy(array.transpose(2, 0, 1)), targets


class DenseHeads(nn.Module):
    """The same parameters as a :class:`CenterNet3D`, with every head run on the whole map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model: CenterNet3D = build_model(config)

    def forward(self, images: Tensor, indices: Tensor | None = None, topk: int = 50) -> dict[str, Tensor]:
        """As ``CenterNet3D.forward``; ``images`` are normalised already."""
        model = self.model
        features = model.neck(model.backbone(images)[2:])
        outputs = {"features": features, "heatmap": model.heatmap(features)}
        maps = {name: getattr(model, name)(features) for name in OBJECT_HEADS}
        if model.obj_depth is not None:
            outputs["obj_depth"] = model.obj_depth(features)
        if indices is None:
            peaks = find_peaks(outputs["heatmap"], topk)
            outputs |= peaks._asdict()
            indices = peaks.indices
        return outputs | {"indices": indices} | {name: gather_cells(m, indices) for name, m in maps.items()}


def synthetic_tree(root: Path, frames: int) -> Path:
    """Rendered frames of KITTI's size with object-wise depth maps, below ``root``."""
    import make_obj_depth
    from tools import make_synthetic_kitti

    folder = root / "KITTI"
    if not folder.is_dir():
        count = str(frames)
        arguments = ["--out", str(folder), "--train", count, "--val", "1", "--test", "0"]
        if make_synthetic_kitti.main(arguments) or make_obj_depth.main(["--dataroot", str(folder)]):
            raise RuntimeError("the bench's frames could not be made")
    return folder
