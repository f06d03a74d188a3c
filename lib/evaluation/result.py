"""The result of an evaluation: precision-recall curves, average precisions, and both as JSON and as tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import LEVEL, Difference, Interval, Replicates
from .protocol import (
    AVERAGES,
    DIFFICULTIES,
    DISTINCT,
    METRIC_TITLES,
    METRICS,
    OVERLAPS,
    RECALLS,
    MinOverlaps,
    matched_by,
)
from .tables import ap_table, difference_table, interval_table


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision over recall of one class, metric, difficulty and overlap; T <= 41 thresholds."""

    n_ground_truth: int  # valid ground truths: each is found or missed
    n_detections: int  # valid detections: of the class, high enough, and inside the distance band if there is one
    thresholds: np.ndarray  # (T,) scores, descending; a detection counts if its score is not below
    true_positives: np.ndarray  # (T,) int64
    false_positives: np.ndarray  # (T,) int64
    recall: np.ndarray  # (T,) true positives over those plus misses
    precision: np.ndarray  # (41,) the largest at this or a higher recall, 0 from T on; NaN where nothing was counted
    orientation: np.ndarray | None  # (41,) the same for orientation similarity; None: not a 2D metric, or alpha unknown
    area: float  # under the interpolated precision over recall, each score a threshold
    orientation_area: float | None


class EqualScores(NamedTuple):
    """Detections whose order the scores do not tell: in the devkit, and here, the earlier line of a frame is taken."""

    detections: int  # all of the class
    sharing_a_score: int  # those with the score of another one, of any frame
    sharing_in_one_frame: int  # those with the score of another one of their frame


@dataclass(frozen=True, eq=False)
class KittiResult:
    """Average precisions in percent.

    There is no AP where no ground truth counts, nor in a metric for which no detection of the class has valid fields.
    A class without any detection has an AP of 0.
    """

    classes: tuple[str, ...]
    n_frames: int
    n_labels: int  # label lines of all frames and types
    n_detections: int  # detections of all frames and types
    curves: Mapping[tuple[str, str, str, str], Curve]  # by (overlap, class, metric but 'aos', difficulty)
    equal_scores: Mapping[str, EqualScores]  # by class
    overlaps: MinOverlaps = field(default_factory=lambda: OVERLAPS)
    notes: tuple[str, ...] = ()  # why figures are missing, what limits them, and values that look wrong
    by_distance: Mapping[str, KittiResult] = field(default_factory=dict)  # of the distance bands, '0-30' [m of depth]
    replicates: Replicates | None = None  # of the bootstrap, if there was one

    def __repr__(self) -> str:
        ap = ", ".join(f"{cls} {'/'.join(self.cells(cls, '3d', 'official'))}" for cls in self.classes)
        return f"<KittiResult: {self.describe()}; 3D AP40 easy/moderate/hard: {ap}>"

    def ap(
        self, cls: str, metric: str, difficulty: str = "moderate", overlap: str = "official", recall: str = "R40"
    ) -> float:
        """Average precision [%]; NaN where there is none. Raises ValueError for a name that does not exist."""
        self._check_names(cls, metric, difficulty, overlap, recall)
        curve = self._curve(cls, metric, difficulty, overlap)
        if curve is None or not self._has_ap(cls, metric, difficulty, overlap):
            return math.nan
        values, area = (curve.orientation, curve.orientation_area) if metric == "aos" else (curve.precision, curve.area)
        assert values is not None and area is not None
        return 100.0 * (area if recall == "all" else float(np.mean(values[list(RECALLS[recall])])))

    def interval(
        self, cls: str, metric: str, difficulty: str = "moderate", overlap: str = "official", recall: str = "R40"
    ) -> Interval:
        """Interval of an average precision [%] at 95 %. Raises ValueError as :meth:`ap`, and without a bootstrap."""
        self._check_names(cls, metric, difficulty, overlap, recall)
        return self._drawn().interval((overlap, cls, metric, difficulty, recall))

    def difference(
        self,
        other: KittiResult,
        cls: str,
        metric: str,
        difficulty: str = "moderate",
        overlap: str = "official",
        recall: str = "R40",
    ) -> Difference:
        """This average precision minus that of ``other``, whose bootstrap had the same draws [points of percent].

        Raises ValueError as :meth:`interval`, and where the draws are not the same.
        """
        value = self.ap(cls, metric, difficulty, overlap, recall) - other.ap(cls, metric, difficulty, overlap, recall)
        return self._drawn().difference(other._drawn(), (overlap, cls, metric, difficulty, recall), value)

    @property
    def never_detected(self) -> tuple[str, ...]:
        """Classes without any detection, or without one that has valid fields."""
        detected = {key[1] for key in self.curves}
        return tuple(cls for cls in self.classes if cls not in detected or not self.equal_scores[cls].detections)

    def to_json(self) -> dict[str, Any]:
        """Plain dict: overlap -> class -> metric -> 'R40' | 'R11' | 'all' -> [easy, moderate, hard], and the counts.

        A metric without AP is left out; an AP without ground truth, or that is NaN (no detection counted at a
        threshold), is None. 'bootstrap' has the draws and, in the same form, all intervals.
        """
        tree: dict[str, Any] = {"frames": self.n_frames, "classes": list(self.classes), "notes": list(self.notes)}
        tree |= self._tree(self.ap)
        tree["counts"] = {"labels": self.n_labels, "detections": self.n_detections}
        for overlap in OVERLAPS:
            own = {cls: [m for m in metrics if m != "aos"] for cls, metrics in self._metrics(overlap).items()}
            tree["counts"][overlap] = {cls: {m: self._counts(cls, m, overlap) for m in own[cls]} for cls in own}
        tree["equal_scores"] = {cls: scores._asdict() for cls, scores in self.equal_scores.items()}
        if self.replicates is not None:
            tree["bootstrap"] = self.replicates.resampling.to_json() | self._tree(self.interval)
        if self.by_distance:
            tree["by_distance"] = {band: result.to_json() for band, result in self.by_distance.items()}
        return tree

    def differences_to_json(self, other: KittiResult) -> dict[str, Any]:
        """All differences to ``other`` in the form of :meth:`to_json`. Raises ValueError as :meth:`difference`."""
        return self._drawn().resampling.to_json() | self._tree(partial(self.difference, other))

    def describe(self) -> str:
        """'1 frame, 3 labels, 7 detections'."""
        counts = {"frame": self.n_frames, "label": self.n_labels, "detection": self.n_detections}
        return ", ".join(f"{number} {name}" + "s" * (number != 1) for name, number in counts.items())

    def table(self) -> str:
        """All APs as text, with intervals if there are any, then the notes; '-': there is none, 'nan': no number."""
        lines = [f"{self.describe()}; AP in percent"]
        if self.replicates is None:
            lines += ap_table(self)
        else:
            lines += [f"[{LEVEL:.0%} interval]: {self.replicates.resampling.describe()}", *interval_table(self)]
        lines += [""] * bool(self.notes) + [f"note: {note}" for note in self.notes]
        for band, result in self.by_distance.items():
            lines += ["", f"Depth {band} m of ground truth" + ", without intervals" * (self.replicates is not None)]
            lines += ap_table(result)
        return "\n".join(lines)

    def difference_table(self, other: KittiResult) -> str:
        """All differences to ``other`` as text. Raises ValueError as :meth:`difference`."""
        head = "first minus second [points], its interval, and the share of replicates in which the first is better"
        return "\n".join([head, *difference_table(self, other)])

    def rows(self, cls: str) -> list[list[str]]:
        """AP40 of a class as the cells of a table, the header first; '-' where there is none."""
        rows = [["AP40 [%]", "overlap", *DIFFICULTIES], ["ground truth", "", *self.ground_truth(cls)]]
        for overlap, metric in DISTINCT:
            minimum = self.overlaps[overlap][cls][matched_by(metric)]
            rows.append([METRIC_TITLES[metric], f"{overlap} {minimum:.2f}", *self.cells(cls, metric, overlap)])
        return rows

    def distance_rows(self, cls: str) -> list[list[str]]:
        """AP40 'moderate' of a class by distance band, in the same form."""
        bands = {band: [row[3] for row in result.rows(cls)[1:]] for band, result in self.by_distance.items()}
        titles = [f"{METRIC_TITLES[metric]}{' loose' if overlap == 'loose' else ''}" for overlap, metric in DISTINCT]
        return [["depth [m]", "ground truth", *titles], *([band, *cells] for band, cells in bands.items())]

    def ground_truth(self, cls: str) -> list[str]:
        """Number of valid ground truths by difficulty; '-' where the class has no 2D AP."""
        curves = [self._curve(cls, "bbox", difficulty, "official") for difficulty in DIFFICULTIES]
        return ["-" if curve is None else str(curve.n_ground_truth) for curve in curves]

    def has_ground_truth(self, cls: str) -> bool:
        """Whether ground truth of a class counts at a difficulty."""
        return not {"0", "-"}.issuperset(self.ground_truth(cls))

    def cells(self, cls: str, metric: str, overlap: str, recall: str = "R40") -> list[str]:
        """AP by difficulty; '-' where there is none, 'nan' where it is no number."""
        present = [self._has_ap(cls, metric, difficulty, overlap) for difficulty in DIFFICULTIES]
        ap = [self.ap(cls, metric, difficulty, overlap, recall) for difficulty in DIFFICULTIES]
        return [f"{value:.2f}" if has else "-" for value, has in zip(ap, present, strict=True)]

    def _check_names(self, cls: str, metric: str, difficulty: str, overlap: str, recall: str) -> None:
        given = {"cls": (cls, self.classes), "metric": (metric, METRICS), "difficulty": (difficulty, DIFFICULTIES)}
        given |= {"overlap": (overlap, tuple(OVERLAPS)), "recall": (recall, AVERAGES)}
        for name, (value, accepted) in given.items():
            if value not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")

    def _drawn(self) -> Replicates:
        if self.replicates is None:
            raise ValueError("there are no intervals: evaluate with a bootstrap")
        return self.replicates

    def _curve(self, cls: str, metric: str, difficulty: str, overlap: str) -> Curve | None:
        return self.curves.get((overlap, cls, matched_by(metric), difficulty))

    def _has_ap(self, cls: str, metric: str, difficulty: str, overlap: str) -> bool:
        curve = self._curve(cls, metric, difficulty, overlap)
        return curve is not None and curve.n_ground_truth > 0 and (metric != "aos" or curve.orientation is not None)

    def _metrics(self, overlap: str) -> dict[str, list[str]]:
        """By class the metrics with a curve; AOS also needs known angles at a difficulty. No class without metrics."""
        found: dict[str, list[str]] = {}
        for cls, metric in product(self.classes, METRICS):
            curves = [self._curve(cls, metric, name, overlap) for name in DIFFICULTIES]
            if any(c is not None and (metric != "aos" or c.orientation is not None) for c in curves):
                found.setdefault(cls, []).append(metric)
        return found

    def _tree(self, figure: Callable[[str, str, str, str, str], Any]) -> dict[str, Any]:
        """overlap -> class -> metric -> recall -> ``figure`` by difficulty; a dict of lists if it is a NamedTuple."""

        def lists(cls: str, metric: str, overlap: str, recall: str) -> Any:
            figures = [figure(cls, metric, difficulty, overlap, recall) for difficulty in DIFFICULTIES]
            names = getattr(figures[0], "_fields", None)
            if names is None:
                return [_none_if_nan(value) for value in figures]
            return {name: [_none_if_nan(getattr(value, name)) for value in figures] for name in names}

        return {
            overlap: {
                cls: {metric: {r: lists(cls, metric, overlap, r) for r in AVERAGES} for metric in metrics}
                for cls, metrics in self._metrics(overlap).items()
            }
            for overlap in OVERLAPS
        }

    def _counts(self, cls: str, metric: str, overlap: str) -> dict[str, list[int]]:
        """By difficulty; true and false positives at the last (lowest) threshold, 0 if there is none."""
        curves = [self.curves[overlap, cls, metric, difficulty] for difficulty in DIFFICULTIES]
        return {
            "valid_ground_truth": [curve.n_ground_truth for curve in curves],
            "valid_detections": [curve.n_detections for curve in curves],
            "true_positives": [int(curve.true_positives[-1:].sum()) for curve in curves],
            "false_positives": [int(curve.false_positives[-1:].sum()) for curve in curves],
        }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
