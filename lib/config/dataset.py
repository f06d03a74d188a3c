"""Section ``dataset`` of the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .checks import one_of, require

CLASS_NAMES = ("Pedestrian", "Car", "Cyclist")
"""KITTI's heatmap channels, in order. Fixed by official checkpoints."""
PROTOCOL_TYPES = ("Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "DontCare")
"""that the evaluation knows, whatever their case, as KITTI's own does"""
MEAN_SIZES = {
    "Pedestrian": (1.76255119, 0.66068622, 0.84422524),
    "Car": (1.52563191, 1.62856739, 3.52588311),
    "Cyclist": (1.73698127, 0.59706367, 1.76282397),
}
"""(height, width, length) [m] that official checkpoints trained with ``meanshape`` are relative to"""


@dataclass(frozen=True)
class Dataset:
    type: str = "kitti"
    """'kitti' is the only one"""
    batch_size: int = 16
    """images of one optimizer step, over all GPUs and processes together"""
    num_workers: int = 4
    """loader processes, shared between the training processes; 0 loads in the main process"""
    train_split: str = "train"
    """'train', 'trainval' or 'val': ImageSets/<train_split>.txt"""
    resolution: tuple[int, int] = (1280, 384)
    """network input (width, height) [px], multiples of 32"""
    use_3d_center: bool = True
    """heatmap at the projected 3D centre; false: at the 2D box's centre"""
    class_merging: bool = False
    """draw Van and Truck on the heatmap of Car, and train nothing else on them"""
    use_dontcare: bool = False
    """official switch; without effect there too, since DontCare never passes the depth test"""
    bbox2d_type: str = "anno"
    """'anno': the label's 2D box; 'proj': the box around the projected 3D corners"""
    meanshape: bool = False
    """regress sizes relative to class means"""
    class_names: tuple[str, ...] = CLASS_NAMES
    """heatmap channels: the classes that the model has. Other names than these make a model for other data"""
    mean_sizes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """{class: [height, width, length]} in metres, for meanshape; those of KITTI's three classes are known"""
    writelist: tuple[str, ...] = ("Car",)
    """classes to train and to evaluate, of class_names"""
    random_flip: float = 0.5
    """probability"""
    random_crop: float = 0.5
    """probability of a random scale and shift; such samples train no 3D term"""
    scale: float = 0.4
    """standard deviation, and largest deviation from 1, of the crop's scale"""
    shift: float = 0.1
    """standard deviation of the crop's shift, as a share of the image; cut at twice that"""
    cache: str = "none"
    """'ram': decoded training images stay in memory, shared by the loaders of a process; KITTI's train split takes
    5.2 GB in each training process. 'none': every image is read and decoded again in every epoch"""
    obj_depth_source: str = "files"
    """object-wise depth maps: 'files' of make_obj_depth.py, or painted from the 'labels' when they are needed"""
    on_bad_frame: str = "stop"
    """a training frame that cannot be read: 'stop' the run and name it, or 'skip' it, log it, and go on; a run in
    which more than 1 % of the frames are bad stops in any case"""
    color_jitter: tuple[float, ...] = ()
    """[brightness, contrast, saturation, hue] of torchvision's ColorJitter; empty: off, as in the official code"""

    def __post_init__(self) -> None:
        one_of("dataset.type", self.type.lower(), ("kitti",))
        require(self.batch_size >= 1, "dataset.batch_size", self.batch_size, ">= 1")
        require(self.num_workers >= 0, "dataset.num_workers", self.num_workers, ">= 0")
        one_of("dataset.train_split", self.train_split, ("train", "trainval", "val"))
        require(
            len(self.resolution) == 2 and all(v >= 32 and v % 32 == 0 for v in self.resolution),
            "dataset.resolution",
            list(self.resolution),
            "[width, height], both multiples of 32",
        )
        one_of("dataset.bbox2d_type", self.bbox2d_type, ("anno", "proj"))
        require(len(self.writelist) > 0, "dataset.writelist", list(self.writelist), "a list with at least one class")
        require(
            len(set(self.writelist)) == len(self.writelist),
            "dataset.writelist",
            list(self.writelist),
            "without repeats",
        )
        self._check_classes()
        one_of("dataset.cache", self.cache, ("none", "ram"))
        one_of("dataset.obj_depth_source", self.obj_depth_source, ("files", "labels"))
        one_of("dataset.on_bad_frame", self.on_bad_frame, ("stop", "skip"))
        for key in ("random_flip", "random_crop"):
            require(0 <= getattr(self, key) <= 1, f"dataset.{key}", getattr(self, key), "a probability in [0, 1]")
        require(0 <= self.scale < 1, "dataset.scale", self.scale, "in [0, 1)")
        require(0 <= self.shift < 0.5, "dataset.shift", self.shift, "in [0, 0.5)")
        require(
            len(self.color_jitter) in (0, 4) and all(v >= 0 for v in self.color_jitter),
            "dataset.color_jitter",
            list(self.color_jitter),
            "[] or [brightness, contrast, saturation, hue], each >= 0",
        )
        if self.color_jitter:
            require(self.color_jitter[3] <= 0.5, "dataset.color_jitter", self.color_jitter[3], "a hue of at most 0.5")

    @property
    def known_sizes(self) -> dict[str, tuple[float, ...]]:
        """(height, width, length) [m] by class: those that are configured, else the official ones."""
        return {**MEAN_SIZES, **self.mean_sizes}

    def _check_classes(self) -> None:
        names = list(self.class_names)
        require(len(names) > 0, "dataset.class_names", names, "a list with at least one class")
        require(len(set(names)) == len(names), "dataset.class_names", names, "without repeats")
        for name in names:
            plain = re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII) and name != "DontCare"
            require(bool(plain), "dataset.class_names", name, "a word of letters, digits, _ and -, and not DontCare")
            spelt = [known for known in (*PROTOCOL_TYPES, *names) if known.lower() == name.lower() and known != name]
            require(not spelt, "dataset.class_names", name, f"{''.join(spelt[:1])}, so spelt here and in the labels")
        for name in self.writelist:
            one_of("dataset.writelist", name, self.class_names)
        require("Car" in names or not self.class_merging, "dataset.class_merging", True, "false without a class Car")
        for name, size in self.mean_sizes.items():
            one_of("dataset.mean_sizes", name, self.class_names)
            positive = len(size) == 3 and all(v > 0 for v in size)
            require(positive, f"dataset.mean_sizes.{name}", list(size), "[height, width, length] in metres")
        for name in names if self.meanshape else []:
            require(name in self.known_sizes, "dataset.mean_sizes", self.mean_sizes, f"with {name}, for meanshape")
