"""The ceiling of the representation: AP of ideal outputs, and why some labels are not reached.

The detections have the two decimals of result files. Ideal outputs all have the same score, and KITTI's curve cannot be
sampled where scores are equal. Therefore scores are whole numbers, a seeded permutation of 1 .. N over all labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from ..config import Config
from ..engine.inference import decode_settings
from ..evaluation import DIFFICULTIES, Annotations, evaluate_annotations, rotated_overlaps, type_names_for
from ..evaluation.annotations import BOX_3D, SCORE, Y1, Y2
from ..evaluation.ignore_rules import MIN_HEIGHT, VALID, label_states
from ..ops.text import text_table
from ..postprocess import decode_detections
from ..structures import FrameInfo, Object3d
from .ideal_outputs import ideal_outputs

REASONS = {  # why a label is not reached, and its name in tables
    "line": "label line after the first dataset.max_objects",
    "difficulty": "difficulty 'UnKnown'",
    "size": "a dimension that is not positive",
    "near": "nearer than dataset.min_depth",
    "far": "beyond dataset.max_depth",
    "outside": "centre outside the map",
    "cell": "same cell as a nearer object",
    "neighbour": "suppressed by a nearer object's peak (3x3)",
    "topk": "not among the topk peaks",
    "decoded": "decoded, but overlap or 2D box too small",
}


class LabelledFrame(NamedTuple):
    info: FrameInfo
    objects: Sequence[Object3d]


class Missed(NamedTuple):
    """A label that counts and is not reached: the columns of missed.csv."""

    frame: str
    line: int  # in the label file, from 1
    type: str
    z: float
    reason: str
    overlap: float  # 3D overlap with its own detection, 0 without one
    difficulties: str  # those at which it counts and is not reached, separated by spaces


@dataclass(frozen=True)
class Ceiling:
    """What ideal outputs reach of one class."""

    cls: str
    min_overlap: float  # official 3D overlap
    ground_truth: tuple[int, ...]  # labels that count at easy, moderate and hard
    ap: tuple[float, ...]  # 3D AP40 [%] at easy, moderate and hard; NaN where no label is decoded
    missed: tuple[Missed, ...]

    def not_reached(self, reason: str) -> list[int]:
        """Number of labels at easy, moderate and hard."""
        return [sum(m.reason == reason and name in m.difficulties for m in self.missed) for name in DIFFICULTIES]

    def to_json(self) -> dict[str, Any]:
        """Plain dict, with NaN; of three figures each, easy, moderate and hard."""
        figures = {"class": self.cls, "overlap": self.min_overlap, "ground_truth": self.ground_truth, "ap": self.ap}
        return {**figures, "not_reached": {reason: self.not_reached(reason) for reason in REASONS}}

    def table(self) -> str:
        """All figures as text."""
        counts = [self.not_reached(reason) for reason in REASONS]
        return text_table([
            [f"{self.cls}, 3D AP40, overlap > {self.min_overlap:.2f}", *DIFFICULTIES],
            ["ceiling [%]", *("-" if np.isnan(ap) else f"{ap:.2f}" for ap in self.ap)],
            ["labels that count", *self.ground_truth],
            ["labels not reached", *map(sum, zip(*counts, strict=True))],
            *([f"  {title}", *numbers] for title, numbers in zip(REASONS.values(), counts, strict=True)),
        ])  # fmt: skip


def measure_ceiling(frames: Iterable[LabelledFrame], config: Config) -> list[Ceiling]:
    """Encode, decode and evaluate the labels of each class in the writelist. ValueError as ``evaluate_annotations``."""
    classes, settings = config.dataset.writelist, decode_settings(config)
    objects, decoded = [], []
    places: list[tuple[str, int, str, float, str]] = []  # of all labels: the first fields of Missed
    rows: list[int] = []  # of the labels with a detection
    for info, labels in frames:
        outputs, lines, lost = ideal_outputs(info, labels, config.dataset, config.tester.topk)
        (detections,) = decode_detections(outputs, [info], settings)
        rows += [len(places) + line for line in lines]
        for line, obj in enumerate(labels):
            reason = lost.get(line, "decoded")
            places.append((info.frame_id, line + 1, obj.type, obj.location_cam[2], reason))
        objects.append(labels)
        decoded.append([Object3d.from_line(detection.to_result_line()) for detection in detections])
    names = type_names_for(classes)
    true, predicted = Annotations.from_objects(objects, False, names), Annotations.from_objects(decoded, True, names)
    predicted.values[:, SCORE] = np.random.default_rng(0).permutation(len(places))[rows] + 1.0
    result = evaluate_annotations(true, predicted, classes, (), config.tester.own_overlaps)
    overlaps, heights = np.zeros(len(places)), np.zeros(len(places))  # of a label's own detection, 0 without one
    overlaps[rows] = rotated_overlaps(true.values[rows, BOX_3D], predicted.values[:, BOX_3D])[1]
    heights[rows] = predicted.values[:, Y2] - predicted.values[:, Y1]

    def ceiling_of(cls: str) -> Ceiling:
        min_overlap = result.overlaps["official"][cls]["3d"]
        counts = np.array([label_states(true, cls, name) == VALID for name in DIFFICULTIES])
        high = np.array([heights >= MIN_HEIGHT[name] for name in DIFFICULTIES])
        failed = counts & ~((overlaps > min_overlap) & high)
        measured = [result.ap(cls, "3d", name) for name in DIFFICULTIES]
        ap = tuple(0.0 if np.isnan(v) and own.any() else v for v, own in zip(measured, counts, strict=True))
        missed = tuple(
            Missed(*places[row], round(overlaps[row], 4), " ".join(compress(DIFFICULTIES, failed[:, row])))
            for row in np.flatnonzero(failed.any(axis=0)).tolist()
        )
        return Ceiling(cls, min_overlap, tuple(counts.sum(axis=1).tolist()), ap, missed)

    return [ceiling_of(cls) for cls in classes]
