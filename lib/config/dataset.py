"""Section ``dataset`` of the configuration."""

import re
from dataclasses import dataclass, field

from ..evaluation.reading import canonical_names
from .checks import require, require_minimum, require_one_of, require_split

CLASS_NAMES = ("Pedestrian", "Car", "Cyclist")
"""Default classes, in the order of the heatmap channels of official checkpoints."""
MEAN_SIZES = {
    "Pedestrian": (1.76255119, 0.66068622, 0.84422524),
    "Car": (1.52563191, 1.62856739, 3.52588311),
    "Cyclist": (1.73698127, 0.59706367, 1.76282397),
}
"""(height, width, length) [m] of the official code, which official ``meanshape`` checkpoints were trained with."""
MERGED_INTO_CAR = ("Van", "Truck")
"""types that ``class_merging`` draws on the heatmap of Car"""


@dataclass(frozen=True)
class Dataset:
    type: str = "kitti"
    """name of a data set in `DATASETS` of `lib/datasets`"""
    batch_size: int = 16
    """images of one optimizer step, over all ranks together"""
    num_workers: int = 4
    """loader processes, shared between the ranks; 0 loads in the training process itself"""
    train_split: str = "train"
    """'train', 'trainval' or another list of frames with labels: trains on those of ImageSets/<train_split>.txt"""
    resolution: tuple[int, int] = (1280, 384)
    """network input [width, height] in pixels, multiples of 32"""
    use_3d_center: bool = True
    """true: heatmap peaks at the projected 3D centre; false: at the centre of the 2D box"""
    class_merging: bool = False
    """draw Van and Truck on the heatmap of Car; they have no other target"""
    bbox2d_type: str = "anno"
    """'anno': the 2D box of the label; 'proj': the box around the projected 3D corners"""
    meanshape: bool = False
    """predict sizes as residuals to the mean size of the class"""
    class_names: tuple[str, ...] = CLASS_NAMES
    """classes of the model, one heatmap channel each, in this order"""
    mean_sizes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """{class: [height, width, length]} in metres, for `meanshape`; KITTI's three classes have the official values"""
    writelist: tuple[str, ...] = ("Car",)
    """classes to train and to evaluate, a subset of `class_names`"""
    min_depth: float = 2.0
    """objects nearer than this depth z [m] are not trained on"""
    max_depth: float = 65.0
    """objects beyond this depth z [m] are not trained on"""
    max_objects: int = 50
    """lines of a label file that are trained on, counted before any selection as in the official code; objects on later
    lines are not trained on"""
    random_flip: float = 0.5
    """probability of a horizontal flip"""
    random_crop: float = 0.5
    """probability of a random scale and shift; such samples train the heatmap, 2D and heading losses only"""
    scale: float = 0.4
    """standard deviation of the scale of random_crop around 1, and its largest deviation from 1"""
    shift: float = 0.1
    """standard deviation of the shift of random_crop, as a share of the image size; clipped at twice this value"""
    cache: str = "none"
    """'none': decode every image again in each epoch; 'ram': keep decoded training images in memory, shared by the
    workers of one rank (5.2 GB per rank for KITTI's train split)"""
    obj_depth_source: str = "files"
    """object-wise depth maps: 'files' written by make_obj_depth.py, or 'labels': painted when a sample is loaded"""
    on_bad_frame: str = "stop"
    """for a training frame that cannot be read: 'stop' ends the run with an error that names the file, 'skip' logs it
    and continues; more than 1 % bad frames always stop the run"""
    max_image_pixels: int = 1 << 26
    """images with more pixels (width times height) are refused: a small file can hold an image that takes all memory"""
    color_jitter: tuple[float, ...] = ()
    """[brightness, contrast, saturation, hue] of torchvision's ColorJitter; [] is off, as in the official code"""

    def __post_init__(self) -> None:
        self._spell_names()
        require_minimum("dataset", self, batch_size=1, num_workers=0, max_image_pixels=1)
        require(1 <= self.max_objects <= 10_000, "dataset.max_objects", self.max_objects, "in 1..10000")
        require(self.min_depth > 0, "dataset.min_depth", self.min_depth, "> 0")
        require(self.max_depth > self.min_depth, "dataset.max_depth", self.max_depth, f"> min_depth ({self.min_depth})")
        require_split("dataset.train_split", self.train_split)
        require(self.train_split != "test", "dataset.train_split", "test", "a list of frames with labels")
        fits = len(self.resolution) == 2 and all(v >= 32 and v % 32 == 0 for v in self.resolution)
        require(fits, "dataset.resolution", list(self.resolution), "[width, height], both multiples of 32")
        require_one_of("dataset.bbox2d_type", self.bbox2d_type, ("anno", "proj"))
        require_one_of("dataset.cache", self.cache, ("none", "ram"))
        require_one_of("dataset.obj_depth_source", self.obj_depth_source, ("files", "labels"))
        require_one_of("dataset.on_bad_frame", self.on_bad_frame, ("stop", "skip"))
        for key in ("random_flip", "random_crop"):
            require(0 <= getattr(self, key) <= 1, f"dataset.{key}", getattr(self, key), "a probability in [0, 1]")
        require(0 <= self.scale < 1, "dataset.scale", self.scale, "in [0, 1)")
        require(0 <= self.shift < 0.5, "dataset.shift", self.shift, "in [0, 0.5)")
        self._check_color_jitter()
        self._check_classes()

    @property
    def evaluated_classes(self) -> list[str]:
        """The classes of ``writelist``, Car first."""
        return sorted(self.writelist, key=lambda name: name != "Car")

    @property
    def known_sizes(self) -> dict[str, tuple[float, ...]]:
        """(height, width, length) [m] by class: the official ones, replaced and extended by ``mean_sizes``."""
        return {**MEAN_SIZES, **self.mean_sizes}

    def _spell_names(self) -> None:
        """Give KITTI's types KITTI's spelling, and the names of the other keys that of ``class_names``."""
        for key in ("class_names", "writelist", "mean_sizes"):
            names = list(getattr(self, key))
            different = {name.lower() for name in names}
            require(len(different) == len(names), f"dataset.{key}", names, "without repeats")
        known = canonical_names()
        class_names = tuple(known.get(name.lower(), name) for name in self.class_names)
        known = canonical_names(class_names)
        writelist = tuple(known.get(name.lower(), name) for name in self.writelist)
        mean_sizes = {known.get(name.lower(), name): size for name, size in self.mean_sizes.items()}
        for key, value in (("class_names", class_names), ("writelist", writelist), ("mean_sizes", mean_sizes)):
            object.__setattr__(self, key, value)  # the object is frozen, but not yet in use

    def _check_color_jitter(self) -> None:
        values = list(self.color_jitter)
        fits = not values or (len(values) == 4 and min(values) >= 0 and max(values) <= 100 and values[3] <= 0.5)
        accepted = "[] or [brightness, contrast, saturation, hue], each in [0, 100], a hue of at most 0.5"
        require(fits, "dataset.color_jitter", values, accepted)

    def _check_classes(self) -> None:
        for key in ("class_names", "writelist"):
            names = list(getattr(self, key))
            require(len(names) > 0, f"dataset.{key}", names, "a list with at least one class")
        for name in self.class_names:
            valid = re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII) and name != "DontCare"
            require(bool(valid), "dataset.class_names", name, "a word of letters, digits, _ and -, and not DontCare")
        for name in self.writelist:
            require_one_of("dataset.writelist", name, self.class_names)
        has_car = "Car" in self.class_names
        require(has_car or not self.class_merging, "dataset.class_merging", True, "false without a class Car")
        for name in MERGED_INTO_CAR:
            own = self.class_merging and name in self.class_names
            require(not own, "dataset.class_merging", True, f"false where class_names has {name}, drawn as Car")
        for name, size in self.mean_sizes.items():
            require_one_of("dataset.mean_sizes", name, self.class_names)
            positive = len(size) == 3 and all(v > 0 for v in size)
            require(positive, f"dataset.mean_sizes.{name}", list(size), "[height, width, length] in metres")
        for name in self.class_names if self.meanshape else ():
            known = name in self.known_sizes
            require(known, "dataset.mean_sizes", self.mean_sizes, f"given for {name}, because meanshape is on")
