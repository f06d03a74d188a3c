"""One line of a KITTI label or result file.

Axes of the rectified camera frame (``_cam``): x right, y down, z forward [m]. ``location`` is the centre of the
box's *bottom* face; ``rotation_y`` turns about the y axis, 0 where the object's front looks along +x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LABEL_COLUMNS = 15
RESULT_COLUMNS = 16
_COLUMN_NAMES = (
    "type truncated occluded alpha bbox_x1 bbox_y1 bbox_x2 bbox_y2 height width length x y z rotation_y score"
).split()


@dataclass(frozen=True, slots=True)
class Object3d:
    """An object in KITTI's words (devkit/readme.txt). Immutable; change one with ``dataclasses.replace``."""

    type: str
    """'Car', 'Van', 'Truck', 'Pedestrian', 'Person_sitting', 'Cyclist', 'Tram', 'Misc' or 'DontCare'"""
    truncated: float
    """share of the object outside the image, 0..1; -1 for DontCare"""
    occluded: int
    """0 visible, 1 partly, 2 largely occluded, 3 unknown; -1 for DontCare"""
    alpha: float
    """observation angle [rad]; -10 where unknown"""
    bbox_img: tuple[float, float, float, float]
    """2D box (x1, y1, x2, y2) [px of the original image]"""
    dimensions: tuple[float, float, float]
    """(height, width, length) [m]"""
    location_cam: tuple[float, float, float]
    """centre of the bottom face (x, y, z) [m]"""
    rotation_y: float
    """[rad]"""
    score: float | None = None
    """confidence of a detection; None for a label"""

    @classmethod
    def from_line(cls, line: str, where: str = "line") -> Object3d:
        """Parse 15 columns (label) or 16 (result). Raises ValueError, beginning with ``where``, for anything else."""
        columns = line.split()
        if len(columns) not in (LABEL_COLUMNS, RESULT_COLUMNS):
            raise ValueError(
                f"{where}: expected {LABEL_COLUMNS} columns (label) or {RESULT_COLUMNS} (result with score), "
                f"got {len(columns)}: {line.strip()[:120]!r}"
            )
        numbers = []
        for name, text in zip(_COLUMN_NAMES[1:], columns[1:], strict=False):
            try:
                number = math.nan if "_" in text else float(text)  # Python's own, which no other reader takes
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                raise ValueError(f"{where}: {name} must be a finite number, got {text[:40]!r}")
            numbers.append(number)
        if numbers[1] != int(numbers[1]):
            raise ValueError(f"{where}: occluded must be a whole number (-1, 0, 1, 2 or 3), got {columns[2]!r}")
        return cls(
            type=columns[0],
            truncated=numbers[0],
            occluded=int(numbers[1]),
            alpha=numbers[2],
            bbox_img=(numbers[3], numbers[4], numbers[5], numbers[6]),
            dimensions=(numbers[7], numbers[8], numbers[9]),
            location_cam=(numbers[10], numbers[11], numbers[12]),
            rotation_y=numbers[13],
            score=numbers[14] if len(numbers) == RESULT_COLUMNS - 1 else None,
        )

    def to_label_line(self) -> str:
        """The line as KITTI's own label files write it: two decimals, and bare integers in a DontCare's blanks."""
        box = " ".join(f"{v:.2f}" for v in self.bbox_img)
        if self.truncated < 0:
            rest = (*self.dimensions, *self.location_cam, self.rotation_y)
            return f"{self.type} {self.truncated:g} {self.occluded} {self.alpha:g} {box} " + " ".join(
                f"{v:g}" for v in rest
            )
        rest = (*self.dimensions, *self.location_cam, self.rotation_y)
        return f"{self.type} {self.truncated:.2f} {self.occluded} {self.alpha:.2f} {box} " + " ".join(
            f"{v:.2f}" for v in rest
        )

    def to_result_line(self) -> str:
        """The line of a result file as the official code writes it: two decimals, the score too.

        The published numbers were computed from such files, so this rounding is part of them.
        """
        numbers = (self.alpha, *self.bbox_img, *self.dimensions, *self.location_cam, self.rotation_y)
        score = 0.0 if self.score is None else self.score
        return f"{self.type} 0.0 0 " + " ".join(f"{v:.2f}" for v in (*numbers, score))

    @property
    def difficulty(self) -> str:
        """'DontCare', 'Easy', 'Moderate', 'Hard' or 'UnKnown', by the rule of the official training code.

        It decides what is trained on. The evaluator has its own, slightly different rule (KITTI's devkit).
        """
        height = self.bbox_img[3] - self.bbox_img[1] + 1
        if self.truncated == -1:
            return "DontCare"
        for name, min_height, max_truncated, max_occluded in (
            ("Easy", 40, 0.15, 0),
            ("Moderate", 25, 0.3, 1),
            ("Hard", 25, 0.5, 2),
        ):
            if height >= min_height and self.truncated <= max_truncated and self.occluded <= max_occluded:
                return name
        return "UnKnown"

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


def read_objects(path: str | Path) -> list[Object3d]:
    """All objects of a label or result file, in file order; empty lines are skipped.

    Raises FileNotFoundError when the file is missing and ValueError, with file and line number, when it is malformed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file (byte {error.start} is not ASCII)") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: a folder stands where a label or result file was expected") from None
    return [
        Object3d.from_line(line, f"{path}, line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
