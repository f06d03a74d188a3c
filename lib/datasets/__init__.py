"""Files of a data set -> samples and batches of tensors.

A data set is a class with the constructor and the attributes of :class:`~.kitti.KITTI`, and an entry of ``DATASETS``.
"""

from ..config import Config, find_dataroot
from .kitti import KITTI
from .object_depth import folder_for

DATASETS: dict[str, type[KITTI]] = {"kitti": KITTI}
"""name in ``dataset.type`` -> class"""

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
    if not training:
        return dataset(root, split, max_frames=max_frames, class_names=c.class_names)
    return dataset(
        root,
        split,
        folder_for(c.writelist) if config.general.obj_depth else None,
        paint_obj_depth=c.obj_depth_source == "labels",
        cache=c.cache == "ram",
        allow_bad_frames=c.on_bad_frame == "skip",
        max_frames=max_frames,
        class_names=c.class_names,
    )
