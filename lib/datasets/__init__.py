"""Files of a data set -> samples and batches of tensors.

A data set is a class with the constructor and the attributes of :class:`~.kitti.KITTI`, and an entry of ``DATASETS``.
"""

import logging
from typing import Any

from ..config import Config, find_dataroot
from ..ops.affine import SAME_RATIO, official_map_fits, resolution_for, share_outside
from .kitti import KITTI
from .object_depth import folder_for

logger = logging.getLogger(__name__)

DATASETS: dict[str, type[KITTI]] = {"kitti": KITTI}  # name in ``dataset.type`` -> class

__all__ = ["DATASETS", "KITTI", "build_dataset"]


def build_dataset(config: Config, split: str, *, training: bool = False, max_frames: int = 0) -> KITTI:
    """The frames of a split of the configured data set.

    Args:
        training: also read object-wise depth maps, keep a cache and allow bad frames as the configuration states.
            Otherwise a frame has no depth map, and every bad frame is an error.
        max_frames: use the first ``max_frames`` frames of the split; 0: all.

    Raises:
        ValueError: for an unknown ``dataset.type``; also, with FileNotFoundError, as the class itself does.
    """
    c = config.dataset
    if c.type.lower() not in DATASETS:
        raise ValueError(f"dataset.type must be one of {', '.join(DATASETS)}, got {c.type!r}")
    dataset, root = DATASETS[c.type.lower()], find_dataroot(config)
    options: dict[str, Any] = {
        "obj_depth_folder": folder_for(c.writelist) if config.general.obj_depth else None,
        "paint_obj_depth": c.obj_depth_source == "labels",
        "cache": c.cache == "ram",
        "allow_bad_frames": c.on_bad_frame == "skip",
    }
    common: dict[str, Any] = {"class_names": c.class_names, "max_image_pixels": c.max_image_pixels}
    frames = dataset(root, split, max_frames=max_frames, **common, **(options if training else {}))
    _warn_of_shape(frames, config)
    return frames


def _warn_of_shape(frames: KITTI, config: Config) -> None:
    """Log a warning where images have another ratio width / height than the network input."""
    (width, height), sizes = config.dataset.resolution, [size for size, _, _ in frames.labelled_images()]
    outside = {size: share_outside(size, (width, height)) for size in set(sizes)}
    cut = [size for size in sizes if outside[size] > SAME_RATIO]
    where = f"of {len(sizes)} images of split {frames.split} have another shape than dataset.resolution"
    if cut:
        tallest = max(cut, key=lambda size: outside[size])
        logger.warning(
            "%d %s [%d, %d]: %.0f %% of the rows of %d x %d images lie outside the network input; %s shows all",
            *(len(cut), where, width, height, 100 * outside[tallest], *tallest),
            list(resolution_for(tallest, (width, height))),
        )
    other = [size for size in sizes if not official_map_fits(*size, (width, height))]
    if other and config.tester.map_to_image == "official":
        logger.warning("%d %s: tester.map_to_image 'official' puts their boxes at wrong rows", len(other), where)
