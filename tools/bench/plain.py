"""The plain side of the comparisons: the same work in the way of the official code.

Targets, losses and backbone are this project's. The rest is done as in the official code: PIL decodes and warps images,
numpy normalises them to float32, every head runs on the whole map, object-wise depth maps are read completely.
"""

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
from lib.models.centernet3d import IMAGE_MEAN, IMAGE_STD
from lib.ops.feature_map import STRIDE, find_peaks, gather_cells, resize_align_corners
from lib.ops.heads import OBJECT_HEADS
from lib.structures import Calibration, Object3d


def plain_sample(
    frames: KITTI, index: int, rng: np.random.Generator, config: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Frame ``index`` -> (3, H, W) float32, normalised, and its targets."""
    c, frame_id = config.dataset, frames.frame_ids[index]
    calibration, objects = frame_annotations(frames, index)
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
    encoded = encode_targets(objects, calibration, augmentation, c)
    targets = {name: torch.from_numpy(value) for name, value in encoded.items()}
    if frames.obj_depth_dir is not None:
        depth_map = Image.fromarray(np.load(frames.obj_depth_dir / f"{frame_id}.npy"))
        if augmentation.flip:
            depth_map = depth_map.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        width_net, height_net = c.resolution
        depth_map = depth_map.transform(c.resolution, Image.Transform.AFFINE, inverse, Image.Resampling.NEAREST)
        depth_net = torch.from_numpy(np.array(depth_map) * np.float32(not augmentation.crop))
        targets["obj_depth"] = resize_align_corners(depth_net[None, None], height_net // STRIDE, width_net // STRIDE)[0]
    return torch.from_numpy(array.transpose(2, 0, 1)), targets


def frame_annotations(frames: KITTI, index: int) -> tuple[Calibration, tuple[Object3d, ...]]:
    """Calibration and labels of a frame, which must be readable."""
    annotation = frames.annotations[index]
    assert not isinstance(annotation, Exception), "the frames of a benchmark are readable"
    return annotation


class DenseHeads(nn.Module):
    """The parameters of a :class:`CenterNet3D`, with every head run on the whole map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model: CenterNet3D = build_model(config)

    def forward(self, images: Tensor, indices: Tensor | None = None, topk: int = 50) -> dict[str, Tensor]:
        """As ``CenterNet3D.forward``, for images that are normalised already."""
        model = self.model
        features = model.extract_features(images)
        outputs = {"features": features, "heatmap": model.heatmap(features)}
        maps = {name: getattr(model, name)(features) for name in OBJECT_HEADS}
        if model.obj_depth is not None:
            outputs["obj_depth"] = model.obj_depth(features)
        if indices is None:
            peaks = find_peaks(outputs["heatmap"], topk)
            outputs |= peaks._asdict()
            indices = peaks.indices
        return outputs | {"indices": indices} | {name: gather_cells(m, indices) for name, m in maps.items()}


def make_synthetic_tree(root: Path, frames: int) -> Path:
    """Render frames of KITTI's size with object-wise depth maps, below ``root``; returns the data root."""
    import make_obj_depth
    from tools import make_synthetic_kitti

    folder = root / "KITTI"
    if not folder.is_dir():
        arguments = ["--out", str(folder), "--train", str(frames), "--val", "1", "--test", "0"]
        if make_synthetic_kitti.main(arguments) or make_obj_depth.main(["--dataroot", str(folder)]):
            raise RuntimeError("the frames for the benchmark could not be rendered")
    return folder
