"""One line of a KITTI label or result file.

Axes of the rectified camera frame (``_cam``): x right, y down, z forward [m]. ``location_cam`` is the centre of the
box's *bottom* face; ``rotation_y`` turns about the y axis, 0 where the object's front looks along +x.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..evaluation.reading import Row, canonical_names, parse_line, read_rows, scan_rows

MIN_DEPTH, MAX_DEPTH = 2.0, 65.0
"""depths z [m] of the official code: nearer objects are not painted on depth maps; defaults of the keys for training"""
SMALLEST_SIZE, LARGEST_SIZE, LARGEST_DISTANCE, LARGEST_PIXEL = 0.01, 100.0, 1000.0, 1e5  # [m], [m], [m], [px]
TRAINING_DIFFICULTIES = (("Easy", 40, 0.15, 0), ("Moderate", 25, 0.3, 1), ("Hard", 25, 0.5, 2))
"""(name, least height [px], largest truncated, largest occluded) of the official training code."""


@dataclass(frozen=True, slots=True)
class Object3d:
    """An object with the fields of KITTI's devkit/readme.txt. Immutable; change one with ``dataclasses.replace``."""

    type: str  # one of ``KITTI_TYPES``, or a class of other data, in the spelling of ``canonical_names``
    truncated: float  # share of the object outside the image, 0..1; -1 for DontCare
    occluded: int  # 0 visible, 1 partly, 2 largely occluded, 3 unknown; -1 for DontCare
    alpha: float  # observation angle [rad]; -10 where unknown
    bbox_img: tuple[float, float, float, float]  # 2D box (x1, y1, x2, y2) [px of the original image]
    dimensions: tuple[float, float, float]  # (height, width, length) [m]
    location_cam: tuple[float, float, float]  # centre of the bottom face (x, y, z) [m]
    rotation_y: float  # [rad]
    score: float | None = None  # confidence of a detection; None for a label, but for an unused 16th column

    @classmethod
    def from_line(cls, line: str) -> Object3d:
        """Parse 15 columns (label) or 16 (result). Raises ValueError, naming column and value, for anything else."""
        return cls._from_row(parse_line(line.encode()))

    @classmethod
    def _from_row(cls, row: Row) -> Object3d:
        name, (truncated, occluded, alpha, x1, y1, x2, y2, height, width, length, x, y, z, rotation_y, *score) = row
        box, sizes, location = (x1, y1, x2, y2), (height, width, length), (x, y, z)
        return cls(name, truncated, int(occluded), alpha, box, sizes, location, rotation_y, *score)

    def to_label_line(self) -> str:
        """The line as KITTI's label files have it: two decimals; in a DontCare's unused fields whole numbers."""
        unused = "g" if self.truncated < 0 else ".2f"
        box = " ".join(f"{v:.2f}" for v in self.bbox_img)
        pose = " ".join(f"{v:{unused}}" for v in (*self.dimensions, *self.location_cam, self.rotation_y))
        return f"{self.type} {self.truncated:{unused}} {self.occluded} {self.alpha:{unused}} {box} {pose}"

    def to_result_line(self) -> str:
        """The line of a result file as the official code writes it: two decimals, also of the score.

        The published numbers were computed from files with this rounding.
        """
        numbers = (self.alpha, *self.bbox_img, *self.dimensions, *self.location_cam, self.rotation_y)
        score = 0.0 if self.score is None else self.score
        return f"{self.type} 0.0 0 " + " ".join(f"{v:.2f}" for v in (*numbers, score))

    @property
    def difficulty(self) -> str:
        """'DontCare', 'Easy', 'Moderate', 'Hard' or 'UnKnown', by the rule of the official training code.

        It decides what is trained on. The evaluator's rule (KITTI's devkit, lib/evaluation/ignore_rules.py) has the
        same limits, but counts the height as y2 - y1 and needs more than the minimum.
        """
        height = self.bbox_img[3] - self.bbox_img[1] + 1
        if self.truncated == -1:
            return "DontCare"
        for name, min_height, max_truncated, max_occluded in TRAINING_DIFFICULTIES:
            if height >= min_height and self.truncated <= max_truncated and self.occluded <= max_occluded:
                return name
        return "UnKnown"

    def find_senseless(self) -> str:
        """What no object can have: a size, a position or a box beyond these bounds; '' if there is nothing of the kind.

        Sizes of 0 and less, and a position of -1000, mean that they are unknown. KITTI's labels have sizes of 0.2 to
        35.2 m and positions of up to 147 m.
        """
        sizes, position = self.dimensions, self.location_cam
        if max(sizes) > LARGEST_SIZE or any(0 < size < SMALLEST_SIZE for size in sizes):
            return f"size {sizes}, expected {SMALLEST_SIZE:g} .. {LARGEST_SIZE:g} m"
        if max(map(abs, position)) > LARGEST_DISTANCE:
            return f"position {position}, expected at most {LARGEST_DISTANCE:g} m"
        if max(map(abs, self.bbox_img)) > LARGEST_PIXEL:
            return f"2D box {self.bbox_img}, expected at most {LARGEST_PIXEL:g} px"
        return ""

    def corners_cam(self) -> np.ndarray:
        """The 8 corners, (8, 3) [m, rectified camera].

        Order: bottom face 0..3 = (front right, front left, rear left, rear right) seen along the object's heading,
        then the top face 4..7 above them.
        """
        height, width, length = self.dimensions
        x = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * (length / 2)
        y = np.array([0, 0, 0, 0, -1, -1, -1, -1]) * height
        z = np.array([-1, 1, 1, -1, -1, 1, 1, -1]) * (width / 2)
        cos, sin = math.cos(self.rotation_y), math.sin(self.rotation_y)
        turned = np.stack([cos * x + sin * z, y, -sin * x + cos * z], axis=1)
        return turned + np.asarray(self.location_cam)


def read_objects(path: str | Path, scored: bool = False, class_names: Iterable[str] = ()) -> list[Object3d]:
    """All objects of a label file or (``scored``) result file, in file order; empty lines are skipped.

    ``class_names``: spelling of classes of one's own, see ``canonical_names``. Raises FileNotFoundError when the file
    is missing and ValueError, with file and line number, when it is malformed.
    """
    return [Object3d._from_row(row) for row in read_rows(path, scored, canonical_names(class_names))]


def scan_objects(
    path: str | Path, scored: bool = False, class_names: Iterable[str] = ()
) -> Iterator[tuple[int, Object3d | ValueError]]:
    """Line number (from 1) and object of each line that is not empty, or the error of a malformed line.

    For checks that report all errors of a file. Arguments as of :func:`read_objects`. Raises FileNotFoundError, and
    ValueError where ``path`` is no text file.
    """
    for number, row in scan_rows(path, scored, canonical_names(class_names)):
        yield number, row if isinstance(row, ValueError) else Object3d._from_row(row)
