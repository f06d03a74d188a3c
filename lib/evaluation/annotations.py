"""The objects of many frames as flat arrays, which the compiled loops of the evaluator read.

F frames, N objects. The objects of frame f are the rows ``offsets[f]:offsets[f + 1]``, in file order.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from .protocol import TYPE_NAMES
from .reading import COLUMN_NAMES, Row, list_names, read_rows

OTHER_TYPE = -1
DONT_CARE = TYPE_NAMES.index("DontCare")
TRUNCATED, OCCLUDED, ALPHA, X1, Y1, _, Y2, HEIGHT, WIDTH, LENGTH, X, Y, Z, ROTATION_Y, SCORE = range(len(COLUMN_NAMES))
BBOX = slice(3, 7)
BOX_3D = slice(7, 14)


class KittiObject(Protocol):
    """Attributes that an object needs to be evaluated: those of ``Object3d`` in lib.structures."""

    @property
    def type(self) -> str: ...
    @property
    def truncated(self) -> float: ...
    @property
    def occluded(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def bbox_img(self) -> tuple[float, float, float, float]: ...
    @property
    def dimensions(self) -> tuple[float, float, float]: ...
    @property
    def location_cam(self) -> tuple[float, float, float]: ...
    @property
    def rotation_y(self) -> float: ...
    @property
    def score(self) -> float | None: ...


@dataclass(frozen=True, eq=False)
class Annotations:
    """Labels, or detections, of F frames."""

    offsets: np.ndarray  # (F + 1,) int64, first row of each frame; the last entry is N
    types: np.ndarray  # (N,) int8, index into ``type_names``, -1 for any other type
    values: np.ndarray  # (N, 15) float64, columns as in ``COLUMN_NAMES``
    type_names: tuple[str, ...] = TYPE_NAMES  # the protocol's, and after them further classes to be evaluated
    other_types: Mapping[str, int] = field(default_factory=dict)  # number of objects of each type beyond ``type_names``
    n_scored: int = 0  # number of objects that came with a score
    frame_ids: Sequence[str] = ()  # names of the F frames, if they are known

    def __post_init__(self) -> None:
        """Raises ValueError, naming frame and object, for a number that is not finite; and for unequal lengths."""
        expected = (int(self.offsets[-1]), len(COLUMN_NAMES))
        if len(self.types) != expected[0] or self.values.shape != expected:
            raise ValueError(f"expected {expected[0]} types and values {expected}, got values {self.values.shape}")
        if not np.isfinite(self.values).all():
            row, column = np.argwhere(~np.isfinite(self.values))[0]
            frame = int(np.searchsorted(self.offsets, row, side="right")) - 1
            name, place = COLUMN_NAMES[column], f"frame {frame}, object {row - self.offsets[frame]}"
            raise ValueError(f"{place}: {name} must be a finite number, got {self.values[row, column]}")

    @property
    def n_frames(self) -> int:
        """Number of frames, those without objects included."""
        return len(self.offsets) - 1

    def count_by_frame(self, chosen: np.ndarray) -> np.ndarray:
        """(F,) int64: number of ``chosen`` (N,) objects in each frame."""
        return np.diff(np.concatenate([[0], np.cumsum(chosen)])[self.offsets])

    def count_types(self) -> dict[str, int]:
        """Number of objects of each type that occurs."""
        counts = np.bincount(self.types[self.types >= 0], minlength=len(self.type_names)).tolist()
        return {name: n for name, n in zip(self.type_names, counts, strict=True) if n} | dict(self.other_types)

    @classmethod
    def from_rows(
        cls, frames: Iterable[Iterable[Row]], type_names: tuple[str, ...] = TYPE_NAMES, frame_ids: Sequence[str] = ()
    ) -> Annotations:
        """For each object of each frame its type name, in any case, and 14 or (with score) 15 numbers."""
        codes = {name.lower(): code for code, name in enumerate(type_names)}
        offsets, types, values = array("q", [0]), array("b"), array("d")
        others: Counter[str] = Counter()
        unscored = 0
        for rows in frames:
            for name, numbers in rows:
                code = codes.get(name.lower(), OTHER_TYPE)
                types.append(code)
                values.extend(numbers)
                if code == OTHER_TYPE:
                    others[name] += 1
                if len(numbers) == SCORE:
                    values.append(0.0)
                    unscored += 1
            offsets.append(len(types))
        table = np.array(values).reshape(-1, len(COLUMN_NAMES))
        return cls(np.array(offsets), np.array(types), table, type_names, others, len(types) - unscored, frame_ids)

    @classmethod
    def from_objects(
        cls, frames: Sequence[Sequence[KittiObject]], scored: bool, type_names: tuple[str, ...] = TYPE_NAMES
    ) -> Annotations:
        """The objects of each frame. Raises ValueError for one without a score if they are detections (``scored``)."""
        for frame, objects in enumerate(frames):
            for index, obj in enumerate(objects):
                if scored and obj.score is None:
                    raise ValueError(f"frame {frame}, detection {index}: score is missing; a detection needs one")
        return cls.from_rows((((obj.type, _numbers(obj)) for obj in objects) for objects in frames), type_names)


def read_annotations(
    folder: str | Path, ids: Sequence[str], scored: bool, type_names: tuple[str, ...] = TYPE_NAMES
) -> Annotations:
    """Read ``folder/<id>.txt`` for each id; ``scored``: they are detections, whose 16th column is required.

    Raises FileNotFoundError that counts the missing files and names the first three, and ValueError with file and
    line for a malformed one.
    """
    folder = Path(folder)
    present = set(list_names(folder))
    missing = [f"{frame}.txt" for frame in ids if f"{frame}.txt" not in present]
    if missing:
        kind = "result" if scored else "label"
        names = ", ".join(missing[:3]) + (", .." if len(missing) > 3 else "")
        hint = " (a frame without detections needs an empty file)" if scored else ""
        if len(missing) == len(ids):
            inside = [name for name in ("data", "label_2", "training/label_2") if (folder / name).is_dir()]
            hint = f"; did you mean {folder / inside[0]}?" if inside else "; is this the right folder?"
        raise FileNotFoundError(f"{folder}: no {kind} file for {len(missing)} of {len(ids)} frames: {names}{hint}")
    return Annotations.from_rows((read_rows(f"{folder}/{frame}.txt", scored) for frame in ids), type_names, ids)


def _numbers(obj: KittiObject) -> list[float]:
    pose = (*obj.dimensions, *obj.location_cam, obj.rotation_y)
    score = () if obj.score is None else (obj.score,)
    return [obj.truncated, obj.occluded, obj.alpha, *obj.bbox_img, *pose, *score]
