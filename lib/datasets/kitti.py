"""KITTI's folders and files -> :class:`Frame`. No augmentation, no encoding, no evaluation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lib.datasets.object_depth import load_object_depth
from lib.structures import Calibration, Object3d, read_objects


@dataclass(frozen=True, slots=True)
class Frame:
    """What KITTI stores about one picture."""

    frame_id: str
    image: np.ndarray
    """(H, W, 3) uint8, RGB"""
    calibration: Calibration
    objects: tuple[Object3d, ...]
    """labels in file order; empty in the test split"""
    obj_depth: np.ndarray | None
    """object-wise depth map (H, W) float32 [m], or None when it was not asked for"""


def read_split(path: Path) -> tuple[str, ...]:
    """Frame ids of an ImageSets file, one a line.

    Raises FileNotFoundError, or ValueError where it is empty or a line is malformed or repeated.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such split file")
    ids: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        frame_id = line.strip()
        if not frame_id:
            continue
        if not re.fullmatch(r"[0-9A-Za-z_-]+", frame_id):
            raise ValueError(f"{path}, line {number}: expected one frame id such as 000123, got {frame_id[:60]!r}")
        if frame_id in ids:
            raise ValueError(f"{path}, line {number}: frame {frame_id} is already on line {ids[frame_id]}")
        ids[frame_id] = number
    if not ids:
        raise ValueError(f"{path}: the split is empty; expected one frame id a line")
    return tuple(ids)


class KITTI:
    """One split of a KITTI tree. Labels and calibrations are parsed at once, so that a bad line is known at the start.

    Args:
        root: folder with ``ImageSets``, and ``training`` / ``testing`` (MonoDLE's ``object/training`` is found too).
        split: 'train', 'val', 'trainval' or 'test'. Labels are expected in all but 'test'.
        obj_depth_folder: 'obj_depth' or 'obj_depth_all' to read the object-wise depth maps with each frame.

    Raises:
        FileNotFoundError, ValueError: naming the first missing or broken file (and line).
    """

    def __init__(self, root: str | Path, split: str, obj_depth_folder: str | None = None) -> None:
        self.root, self.split = Path(root), split
        self.frame_ids = read_split(self.root / "ImageSets" / f"{split}.txt")
        self.has_labels = split != "test"
        self.data_dir = self._find_data_dir()
        self.image_dir = self.data_dir / "image_2"
        self.label_dir = self._find_label_dir()
        self.obj_depth_dir = self.data_dir / obj_depth_folder if obj_depth_folder else None
        self._require_files(self.image_dir, ".png")
        if self.obj_depth_dir is not None:
            self._require_files(self.obj_depth_dir, ".npy", "; make them with make_obj_depth.py")
        calib_dir = self.data_dir / "calib"
        self._require_files(calib_dir, ".txt")
        self.calibrations = [Calibration.from_file(calib_dir / f"{i}.txt") for i in self.frame_ids]
        self.objects: list[tuple[Object3d, ...]] = [()] * len(self.frame_ids)
        if self.has_labels:
            self._require_files(self.label_dir, ".txt")
            self.objects = [self._read_label(i) for i in self.frame_ids]

    def __len__(self) -> int:
        return len(self.frame_ids)

    def read(self, index: int) -> Frame:
        """Frame number ``index`` of the split. Raises ValueError naming a file that cannot be used."""
        frame_id = self.frame_ids[index]
        path = self.image_dir / f"{frame_id}.png"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path}: this picture cannot be decoded; expected a PNG")
        obj_depth = None
        if self.obj_depth_dir is not None:
            obj_depth = load_object_depth(self.obj_depth_dir / f"{frame_id}.npy", (image.shape[1], image.shape[0]))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return Frame(frame_id, image, self.calibrations[index], self.objects[index], obj_depth)

    def _find_data_dir(self) -> Path:
        name = "testing" if self.split == "test" else "training"
        candidates = [self.root / name, self.root / "object" / name]
        for folder in candidates:
            if (folder / "image_2").is_dir():
                return folder
        raise FileNotFoundError(f"no pictures: neither {candidates[0]}/image_2 nor {candidates[1]}/image_2 exists")

    def _find_label_dir(self) -> Path:
        older = self.data_dir / "label"
        return older if older.is_dir() and not (self.data_dir / "label_2").is_dir() else self.data_dir / "label_2"

    def _require_files(self, folder: Path, suffix: str, cure: str = "") -> None:
        present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        missing = [i for i in self.frame_ids if i + suffix not in present]
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of the {len(self.frame_ids)} files of split {self.split!r} are missing, "
                f"the first is {missing[0]}{suffix}{cure}"
            )

    def _read_label(self, frame_id: str) -> tuple[Object3d, ...]:
        return tuple(read_objects(self.label_dir / f"{frame_id}.txt"))
