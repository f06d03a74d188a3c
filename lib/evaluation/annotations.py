"""The objects of many frames as flat arrays: what the evaluator's loops walk over.

F frames, N objects. The objects of frame f are the rows ``offsets[f]:offsets[f + 1]``, in file order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..structures import Object3d

TYPE_NAMES = ("Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "DontCare")
"""The types that the protocol knows, in the order of their codes."""
OTHER_TYPE = -1
DONT_CARE = TYPE_NAMES.index("DontCare")

COLUMN_NAMES = (
    *("truncated", "occluded", "alpha", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
    *("height", "width", "length", "x", "y", "z", "rotation_y", "score"),
)
"""The 15 numbers of a line, in file order: bbox [px], sizes and location [m], angles [rad]."""
TRUNCATED, OCCLUDED, ALPHA, _, Y1, _, Y2, HEIGHT, WIDTH, LENGTH, X, Y, Z, _, SCORE = range(15)
BBOX = slice(3, 7)
BOX_3D = slice(7, 14)
X1 = 3



@dataclass(frozen=True, eq=False)
class Annotations:
    """Labels, or detections, of F frames."""

    offsets: np.ndarray
    """(F + 1,) int64, first row of each frame; the last entry is N"""
    types: np.ndarray
    """(N,) int8, index into ``type_names``, -1 for any other type"""
    values: np.ndarray
    """(N, 15) float64, columns as in COLUMN_NAMES; best column by column (order "F"), which is how they are read"""
    type_names: tuple[str, ...] = TYPE_NAMES
    """the protocol's own, and after them further classes that are to be evaluated"""

    @property
    def n_frames(self) -> int:
        """Number of frames, those without objects too."""
        return len(self.offsets) - 1

    @classmethod
    def from_arrays(
        cls,
        types: Sequence[Sequence[str]],
        values: Sequence[np.ndarray],
        type_names: tuple[str, ...] = TYPE_NAMES,
    ) -> Annotations:
        """Per frame its n type names (in any case) and its (n, 15) numbers, columns as in ``COLUMN_NAMES``.

        Labels may come as (n, 14), without score. Raises ValueError, naming the frame, for another shape or a
        number that is not finite.
        """
        if len(types) != len(values):
            raise ValueError(f"types has {len(types)} frames, values has {len(values)}")
        blocks = [_block(f"frame {f}", len(names), values[f]) for f, names in enumerate(types)]
        offsets = np.zeros(len(blocks) + 1, dtype=np.int64)
        np.cumsum([len(block) for block in blocks], out=offsets[1:])
        known = {name.lower(): code for code, name in enumerate(type_names)}
        codes = np.array([known.get(name.lower(), OTHER_TYPE) for names in types for name in names], dtype=np.int8)
        return cls(offsets, codes, np.concatenate([np.zeros((0, len(COLUMN_NAMES))), *blocks]), type_names)

    @classmethod
    def concatenate(cls, parts: Sequence[Annotations]) -> Annotations:
        """The frames of all parts, one after the other."""
        sizes = np.concatenate([np.zeros(1, dtype=np.int64), *(np.diff(part.offsets) for part in parts)])
        types = np.concatenate([np.zeros(0, dtype=np.int8), *(part.types for part in parts)])
        values = np.empty((len(types), len(COLUMN_NAMES)), order="F")
        row = 0
        for part in parts:
            values[row : row + len(part.values)] = part.values
            row += len(part.values)
        return cls(np.cumsum(sizes), types, values, parts[0].type_names if parts else TYPE_NAMES)

    @classmethod
    def from_objects(
        cls, frames: Sequence[Sequence[Object3d]], scored: bool, type_names: tuple[str, ...] = TYPE_NAMES
    ) -> Annotations:
        """Parsed objects per frame; ``scored``: they are detections, and one without a score is a ValueError."""
        for frame, objects in enumerate(frames):
            for index, obj in enumerate(objects):
                if scored and obj.score is None:
                    raise ValueError(f"frame {frame}, detection {index}: score is missing; a detection needs one")
        types = [[obj.type for obj in objects] for objects in frames]
        values = [np.array([_numbers(obj) for obj in objects]) for objects in frames]
        return cls.from_arrays(types, values, type_names)


def _block(where: str, n_objects: int, values: np.ndarray) -> np.ndarray:
    """The numbers of one frame, checked, as (n, 15)."""
    block = np.zeros((n_objects, len(COLUMN_NAMES)))
    if n_objects == 0 and np.size(values) == 0:
        return block
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 2 or len(numbers) != n_objects or numbers.shape[1] not in (14, 15):
        raise ValueError(f"{where}: expected ({n_objects}, 14) or ({n_objects}, 15) numbers, got {numbers.shape}")
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0]
        name, number = COLUMN_NAMES[column], numbers[row, column]
        raise ValueError(f"{where}, object {row}: {name} must be a finite number, got {number}")
    block[:, : numbers.shape[1]] = numbers
    return block


def _numbers(obj: Object3d) -> tuple[float, ...]:
    score = 0.0 if obj.score is None else obj.score
    pose = (*obj.dimensions, *obj.location_cam, obj.rotation_y)
    return (obj.truncated, obj.occluded, obj.alpha, *obj.bbox_img, *pose, score)
