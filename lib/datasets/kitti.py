"""Folders and files in KITTI's layout -> :class:`Frame`, without augmentation or encoding."""

import logging
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import Dataset
from ..config.checks import require_split
from ..ops.text import counted
from ..structures import Calibration, Object3d, focal_net, read_split, scan_objects
from .image_cache import ImageCache
from .images import find_image, find_second_images, read_image, read_image_header, uses_12_of_16_bits
from .object_depth import PAINTED_TYPES, SUFFIXES, find_object_depth, paint_object_depth, read_object_depth
from .split_labels import review_labels

logger = logging.getLogger(__name__)
_DECODED = 3  # dark 16-bit images after which no more images are decoded at the start


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything that KITTI stores about one image."""

    frame_id: str
    image: np.ndarray
    """(H, W, 3) uint8, RGB"""
    calibration: Calibration
    objects: tuple[Object3d, ...]
    """labels in file order; empty in the test split"""
    obj_depth: np.ndarray | None
    """object-wise depth map (H, W) float32 [m], maybe memory-mapped; None for a data set without depth maps"""


def find_lists(root: Path) -> Path:
    """The folder of the lists of frames. Raises FileNotFoundError where there is none."""
    folder = root / "ImageSets"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; expected KITTI's layout (ImageSets/, training/, testing/). KITTI's download "
            "does not contain ImageSets/: copy data/KITTI/ImageSets of this project"
        )
    return folder


def find_data_dir(root: Path, name: str) -> Path:
    """``root/name`` or MonoDLE's ``root/object/name``, the first that has images. Raises FileNotFoundError."""
    candidates = [root / name, root / "object" / name]
    for folder in candidates:
        if (folder / "image_2").is_dir():
            return folder
    raise FileNotFoundError(f"no images: neither {candidates[0]}/image_2 nor {candidates[1]}/image_2 exists")


def find_label_dir(data_dir: Path) -> Path:
    """``label_2``; ``label``, the older name, where only that exists."""
    older = data_dir / "label"
    return older if older.is_dir() and not (data_dir / "label_2").is_dir() else data_dir / "label_2"


class KITTI:
    """One split of a data set in KITTI's layout.

    Labels, calibrations and image headers are read by the constructor, so that broken files are found at the start.

    Args:
        root: folder with ``ImageSets``, and ``training`` / ``testing`` or MonoDLE's ``object/training`` / ..
        split: 'train', 'val' or another list in ImageSets; 'test' has no labels.
        obj_depth_folder: 'obj_depth' or 'obj_depth_all': frames have the object-wise depth maps of that folder.
        paint_obj_depth: paint these maps from the labels instead of reading files.
        cache: keep decoded images in memory (see ``ImageCache``).
        allow_bad_frames: missing or broken files of a frame raise an error in :meth:`read`, not in the constructor.
        max_frames: use the first ``max_frames`` frames of the split; 0: all.
        class_names: spelling of classes of one's own, which labels may have with other upper and lower case.
        max_image_pixels: images with more pixels are refused; None: no limit.
        frame_ids: these frames; the list of the split in ImageSets is then not read.

    Raises:
        FileNotFoundError, ValueError: naming the first missing or broken file (and line).
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        obj_depth_folder: str | None = None,
        *,
        paint_obj_depth: bool = False,
        cache: bool = False,
        allow_bad_frames: bool = False,
        max_frames: int = 0,
        class_names: Sequence[str] = (),
        max_image_pixels: int | None = Dataset.max_image_pixels,
        frame_ids: Sequence[str] | None = None,
    ) -> None:
        require_split("split", split)
        self.root, self.split = Path(root), split
        listed = read_split(find_lists(self.root) / f"{split}.txt") if frame_ids is None else list(frame_ids)
        self.frame_ids = listed[: max_frames or None]
        self.chosen_by = f"split {split!r}" if frame_ids is None else "the given frames"
        self.index_of = {frame_id: k for k, frame_id in enumerate(self.frame_ids)}
        self.has_labels = split != "test"
        self.data_dir = find_data_dir(self.root, "training" if self.has_labels else "testing")
        self.image_dir = self.data_dir / "image_2"
        self.label_dir = find_label_dir(self.data_dir)
        self.obj_depth_dir = self.data_dir / obj_depth_folder if obj_depth_folder and not paint_obj_depth else None
        self.has_obj_depth = obj_depth_folder is not None
        self.painted_types = PAINTED_TYPES[obj_depth_folder] if obj_depth_folder else ()
        self.calib_dir = self.data_dir / "calib"
        self.class_names, self.max_image_pixels = class_names, max_image_pixels
        if not allow_bad_frames:
            self._require_all()
        self.annotations: list[tuple[Calibration, tuple[Object3d, ...]] | Exception] = []
        """calibration and labels of each frame, or the error that :meth:`read` raises for it"""
        self._turned: list[str] = []
        self._dark: list[str] = []
        self._decoded = 0
        self.image_sizes: list[tuple[int, int]] = []
        """(width, height) [px] of each image; (0, 0) for a frame with an error"""
        for frame_id in self.frame_ids:
            try:
                size, calibration, objects = self._read_headers(frame_id)
                self.image_sizes.append(size)
                self.annotations.append((calibration, objects))
            except (ValueError, OSError) as error:
                if not allow_bad_frames:
                    raise
                self.image_sizes.append((0, 0))
                self.annotations.append(error)
        readable = [i for i, a in zip(self.frame_ids, self.annotations, strict=True) if not isinstance(a, Exception)]
        known = iter(review_labels(list(self.labelled_images()), readable, self.label_dir, self.split))
        self.annotations = [a if isinstance(a, Exception) else (a[0], next(known)) for a in self.annotations]
        self._warn_of_images()
        self.cache = ImageCache(self.image_sizes) if cache else None

    def __len__(self) -> int:
        return len(self.frame_ids)

    def annotation(self, index: int) -> tuple[Calibration, tuple[Object3d, ...]]:
        """Calibration and labels of a frame. Raises ValueError or OSError naming a file that cannot be used."""
        annotation = self.annotations[index]
        if isinstance(annotation, Exception):
            raise annotation
        return annotation

    def read(self, index: int) -> Frame:
        """Frame ``index`` of the split. Raises ValueError or OSError naming a file that cannot be used."""
        frame_id, (calibration, objects) = self.frame_ids[index], self.annotation(index)
        image = self.cache.get(index) if self.cache else None
        if image is None:
            image = read_image(find_image(self.image_dir, frame_id), max_pixels=None)  # the header was checked
            if self.cache:
                self.cache.put(index, image)
        size, obj_depth = (image.shape[1], image.shape[0]), None
        if self.obj_depth_dir is not None:
            obj_depth = read_object_depth(find_object_depth(self.obj_depth_dir, frame_id), size)
        elif self.has_obj_depth:
            obj_depth = paint_object_depth(objects, size, self.painted_types)
        return Frame(frame_id, image, calibration, objects, obj_depth)

    def median_focal_net(self, input_width: int) -> float | None:
        """Median of the frames' focal lengths [px at network input of this width]; None if no frame can be read."""
        focals = [focal_net(calibration, size[0], input_width) for size, calibration, _ in self.labelled_images()]
        return statistics.median(focals) if focals else None

    def labelled_images(self) -> Iterator[tuple[tuple[int, int], Calibration, tuple[Object3d, ...]]]:
        """Size (width, height) [px], calibration and labels of each frame that can be read."""
        for size, annotation in zip(self.image_sizes, self.annotations, strict=True):
            if not isinstance(annotation, Exception):
                yield size, *annotation

    def _warn_of_images(self) -> None:
        """Name images that may not be what their labels refer to."""
        several = find_second_images((entry.name for entry in self.image_dir.iterdir()), self.index_of)
        for frame_id, names in list(several.items())[:1]:
            used = find_image(self.image_dir, frame_id).name
            text = "%s: two images of the same frame, %s; %s is used (%s like this)"
            logger.warning(text, self.image_dir, " and ".join(names), used, counted(len(several), "frame"))
        if self._turned:
            text = "%s: the EXIF orientation of %s is ignored (labels refer to stored pixels), the first is %s"
            logger.warning(text, self.image_dir, counted(len(self._turned), "image"), self._turned[0])
        if self._dark:
            text = "%s: 16-bit images with values of 12 bits at most, such as %s, are read as nearly black"
            logger.warning(text, self.image_dir, self._dark[0])

    def _require_all(self) -> None:
        missing = [frame_id for frame_id in self.frame_ids if not find_image(self.image_dir, frame_id).is_file()]
        self._refuse_missing(self.image_dir, missing, ".png")
        if self.obj_depth_dir is not None:
            self._require_files(self.obj_depth_dir, SUFFIXES, "; make them with make_obj_depth.py")
        self._require_files(self.calib_dir, (".txt",))
        if self.has_labels:
            self._require_files(self.label_dir, (".txt",))

    def _require_files(self, folder: Path, suffixes: Sequence[str], cure: str = "") -> None:
        present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        missing = [i for i in self.frame_ids if not any(i + suffix in present for suffix in suffixes)]
        self._refuse_missing(folder, missing, suffixes[0], cure)

    def _refuse_missing(self, folder: Path, missing: Sequence[str], suffix: str, cure: str = "") -> None:
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of the {len(self.frame_ids)} files of {self.chosen_by} are missing, "
                f"the first is {missing[0]}{suffix}{cure}"
            )

    def _read_headers(self, frame_id: str) -> tuple[tuple[int, int], Calibration, tuple[Object3d, ...]]:
        """Image size, calibration and labels. Images and depth maps are checked by their headers only."""
        path = find_image(self.image_dir, frame_id)
        header = read_image_header(path, self.max_image_pixels)
        size = header.size
        if header.orientation != 1:
            self._turned.append(path.name)
        if header.bits == 16 and self._decoded < _DECODED:
            self._decoded += 1
            if uses_12_of_16_bits(header, read_image(path, max_pixels=None)):
                self._dark.append(path.name)
        if self.obj_depth_dir is not None:
            read_object_depth(find_object_depth(self.obj_depth_dir, frame_id), size)
        calibration = Calibration.from_file(self.calib_dir / f"{frame_id}.txt")
        return size, calibration, tuple(self._read_labels(frame_id)) if self.has_labels else ()

    def _read_labels(self, frame_id: str) -> Iterator[Object3d]:
        path = self.label_dir / f"{frame_id}.txt"
        for line, found in scan_objects(path, class_names=self.class_names):
            if isinstance(found, ValueError):
                raise ValueError(f"{path}, line {line}: {found}")
            senseless = "" if found.type == "DontCare" else found.find_senseless()
            if senseless:
                raise ValueError(f"{path}, line {line}: {senseless}")
            yield found
