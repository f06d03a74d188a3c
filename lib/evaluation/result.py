"""The result of an evaluation: precision-recall curves, average precisions, and both as JSON and as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .protocol import DIFFICULTIES, METRIC_TITLES, METRICS, OVERLAPS, RECALLS, MinOverlaps

# (overlap, metric): in 2D, loose is official
_DISTINCT = tuple((o, m) for o in OVERLAPS for m in METRICS if o == "official" or m in ("bev", "3d"))


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


@dataclass(frozen=True, eq=False)
class KittiResult:
    """Average precisions in percent.

    There is no AP in a metric in which no detection of the class has valid fields, and where no ground truth counts.
    """

    classes: tuple[str, ...]
    n_frames: int
    n_labels: int  # label lines of all frames and types
    n_detections: int  # detections of all frames and types
    curves: Mapping[tuple[str, str, str, str], Curve]  # by (overlap, class, metric but 'aos', difficulty)
    overlaps: MinOverlaps = field(default_factory=lambda: OVERLAPS)
    notes: tuple[str, ...] = ()  # why figures are missing, what limits them, and values that look wrong
    by_distance: Mapping[str, KittiResult] = field(default_factory=dict)  # of the distance bands, '0-30' [m of depth]

    def ap(
        self, cls: str, metric: str, difficulty: str = "moderate", overlap: str = "official", recall: str = "R40"
    ) -> float:
        """Average precision [%]; NaN where there is none. Raises ValueError for a name that does not exist."""
        given = {"cls": (cls, self.classes), "metric": (metric, METRICS), "difficulty": (difficulty, DIFFICULTIES)}
        given |= {"overlap": (overlap, tuple(OVERLAPS)), "recall": (recall, tuple(RECALLS))}
        for name, (value, accepted) in given.items():
            if value not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")
        samples = self._samples(cls, metric, difficulty, overlap)
        return math.nan if samples is None else 100.0 * float(np.mean(samples[list(RECALLS[recall])]))

    @property
    def never_detected(self) -> tuple[str, ...]:
        """Classes without any AP."""
        return tuple(cls for cls in self.classes if all(key[1] != cls for key in self.curves))

    def to_json(self) -> dict[str, Any]:
        """Plain dict: overlap -> class -> metric -> 'R40' | 'R11' -> [easy, moderate, hard], and the counts.

        A class or metric that is not detected is left out; an AP without ground truth, or that is NaN (no detection
        counted at a threshold), is None.
        """
        tree: dict[str, Any] = {"frames": self.n_frames, "classes": list(self.classes), "notes": list(self.notes)}
        counts: dict[str, Any] = {"labels": self.n_labels, "detections": self.n_detections}
        for overlap in OVERLAPS:
            tree[overlap], counts[overlap] = {}, {}
            for cls in self.classes:
                metrics = [m for m in METRICS if self._has_curve(cls, m, overlap)]
                if metrics:
                    tree[overlap][cls] = {m: self._ap_lists(cls, m, overlap) for m in metrics}
                    counts[overlap][cls] = {m: self._counts(cls, m, overlap) for m in metrics if m != "aos"}
        tree["counts"] = counts
        if self.by_distance:
            tree["by_distance"] = {band: result.to_json() for band, result in self.by_distance.items()}
        return tree

    def table(self) -> str:
        """All APs as text, one line for a class without any, then the notes; '-': there is none, 'nan': no number."""
        lines = [f"{self.n_frames} frames, {self.n_labels} labels, {self.n_detections} detections; AP in percent"]
        for cls in self.classes:
            if cls in self.never_detected:
                lines += ["", f"{cls:<24}no valid detection, so no figures"]
                continue
            lines += ["", f"{cls:<24}{'R40':^27}   {'R11':^27}".rstrip()]
            lines.append(" " * 24 + "   ".join(_align(DIFFICULTIES) for _ in RECALLS))
            lines.append(f"{'ground truth that counts':<24}" + _align(self._ground_truth(cls)))
            for overlap, minimums in self.overlaps.items():
                for metric in METRICS:
                    minimum = minimums[cls][_matched_by(metric)]
                    cells = [_align(self._cells(cls, metric, overlap, recall)) for recall in RECALLS]
                    lines.append(f"{overlap:<9} {METRIC_TITLES[metric]:<4} > {minimum:.2f}  " + "   ".join(cells))
        lines += [""] * bool(self.notes) + [f"note: {note}" for note in self.notes]
        for band, result in self.by_distance.items():
            lines += ["", f"Depth {band} m: " + result.table()]
        return "\n".join(lines)

    def rows(self, cls: str) -> list[list[str]]:
        """AP40 of a class as the cells of a table, the header first; '-' where there is none."""
        ground_truth = self._ground_truth(cls)
        rows = [["AP40 [%]", "overlap", *DIFFICULTIES], ["ground truth", "", *ground_truth]]
        for overlap, metric in _DISTINCT:
            minimum = self.overlaps[overlap][cls][_matched_by(metric)]
            rows.append([METRIC_TITLES[metric], f"{overlap} {minimum:.2f}", *self._cells(cls, metric, overlap)])
        return rows

    def distance_rows(self, cls: str) -> list[list[str]]:
        """AP40 'moderate' of a class by distance band, in the same form."""
        bands = {band: [row[3] for row in result.rows(cls)[1:]] for band, result in self.by_distance.items()}
        titles = [f"{METRIC_TITLES[metric]}{' loose' if overlap == 'loose' else ''}" for overlap, metric in _DISTINCT]
        return [["depth [m]", "ground truth", *titles], *([band, *cells] for band, cells in bands.items())]

    def _curve(self, cls: str, metric: str, difficulty: str, overlap: str) -> Curve | None:
        return self.curves.get((overlap, cls, _matched_by(metric), difficulty))

    def _samples(self, cls: str, metric: str, difficulty: str, overlap: str) -> np.ndarray | None:
        """(41,) what AP is the mean of; None where there is no AP."""
        curve = self._curve(cls, metric, difficulty, overlap)
        if curve is None or curve.n_ground_truth == 0:
            return None
        return curve.orientation if metric == "aos" else curve.precision

    def _has_curve(self, cls: str, metric: str, overlap: str) -> bool:
        """Whether the class is detected in a metric; AOS also needs known angles at a difficulty."""
        curves = [self._curve(cls, metric, name, overlap) for name in DIFFICULTIES]
        return any(c is not None and (metric != "aos" or c.orientation is not None) for c in curves)

    def _ap_lists(self, cls: str, metric: str, overlap: str) -> dict[str, list[float | None]]:
        ap = {recall: [self.ap(cls, metric, name, overlap, recall) for name in DIFFICULTIES] for recall in RECALLS}
        return {recall: [None if math.isnan(value) else value for value in values] for recall, values in ap.items()}

    def _counts(self, cls: str, metric: str, overlap: str) -> dict[str, list[int]]:
        """By difficulty; true and false positives at the last (lowest) threshold, 0 if there is none."""
        curves = [self.curves[overlap, cls, metric, difficulty] for difficulty in DIFFICULTIES]
        return {
            "valid_ground_truth": [curve.n_ground_truth for curve in curves],
            "valid_detections": [curve.n_detections for curve in curves],
            "true_positives": [int(curve.true_positives[-1:].sum()) for curve in curves],
            "false_positives": [int(curve.false_positives[-1:].sum()) for curve in curves],
        }

    def _ground_truth(self, cls: str) -> list[str]:
        """Number of valid ground truths by difficulty; '-' where the class has no 2D AP."""
        curves = [self._curve(cls, "bbox", difficulty, "official") for difficulty in DIFFICULTIES]
        return ["-" if curve is None else str(curve.n_ground_truth) for curve in curves]

    def _cells(self, cls: str, metric: str, overlap: str, recall: str = "R40") -> list[str]:
        present = [self._samples(cls, metric, difficulty, overlap) is not None for difficulty in DIFFICULTIES]
        ap = [self.ap(cls, metric, difficulty, overlap, recall) for difficulty in DIFFICULTIES]
        return [f"{value:.2f}" if has else "-" for value, has in zip(ap, present, strict=True)]


def _matched_by(metric: str) -> str:
    """The metric in which the matches of ``metric`` are found."""
    return "bbox" if metric == "aos" else metric


def _align(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>9}" for cell in cells)
