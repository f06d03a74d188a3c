"""What an evaluation says: curves, average precisions, and their forms as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

N_SAMPLES = 41
"""Recall is sampled at 0, 1/40, .. 1"""
RECALLS = {"R40": tuple(range(1, 41)), "R11": tuple(range(0, 41, 4))}
"""Which of the 41 samples an average precision is the mean of (R11: before October 2019)"""
DIFFICULTIES = ("easy", "moderate", "hard")
METRICS = ("bbox", "aos", "bev", "3d")
"""2D box, average orientation similarity, bird's eye view, 3D box"""
OVERLAPS: dict[str, dict[str, dict[str, float]]] = {
    "official": {
        "Car": {"bbox": 0.7, "bev": 0.7, "3d": 0.7},
        "Pedestrian": {"bbox": 0.5, "bev": 0.5, "3d": 0.5},
        "Cyclist": {"bbox": 0.5, "bev": 0.5, "3d": 0.5},
    },
    "loose": {
        "Car": {"bbox": 0.7, "bev": 0.5, "3d": 0.5},
        "Pedestrian": {"bbox": 0.5, "bev": 0.25, "3d": 0.25},
        "Cyclist": {"bbox": 0.5, "bev": 0.25, "3d": 0.25},
    },
}
"""A match needs an overlap above this."""
OWN_OVERLAPS = (0.5, 0.25)
"""of a class that KITTI does not evaluate, unless told otherwise: the overlaps of Pedestrian and Cyclist"""
_DISTINCT = tuple((o, m) for o in OVERLAPS for m in METRICS if o == "official" or m in ("bev", "3d"))
"""(overlap, metric): in 2D, loose is official"""
_TITLES = {"bbox": "2D", "aos": "AOS", "bev": "BEV", "3d": "3D"}


def overlaps_for(
    classes: Sequence[str], own: Mapping[str, tuple[float, float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """``OVERLAPS`` with the further ``classes``; ``own``: a class's overlap, and its loose one in BEV and 3D."""
    overlaps = {kind: dict(minimums) for kind, minimums in OVERLAPS.items()}
    for name in classes:
        if name not in OVERLAPS["official"] or name in own:
            strict, loose = own.get(name, OWN_OVERLAPS)
            if not 0 <= loose <= strict < 1:
                raise ValueError(f"overlaps of {name}: expected 0 <= loose <= official < 1, got {strict:g}, {loose:g}")
            overlaps["official"][name] = {"bbox": strict, "bev": strict, "3d": strict}
            overlaps["loose"][name] = {"bbox": strict, "bev": loose, "3d": loose}
    return overlaps


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision over recall of one class, metric, difficulty and overlap; T <= 41 thresholds."""

    n_ground_truth: int
    """valid ground truths: those that count as missed if nothing finds them"""
    n_detections: int
    """valid detections: of the class, high enough, and inside the distance band if there is one"""
    thresholds: np.ndarray
    """(T,) scores, descending; a detection counts if its score is not below"""
    true_positives: np.ndarray
    """(T,) int64"""
    false_positives: np.ndarray
    """(T,) int64"""
    recall: np.ndarray
    """(T,) true positives over those plus misses"""
    precision: np.ndarray
    """(41,) the largest precision at this or a higher recall, 0 from T on; NaN where nothing was counted"""
    orientation: np.ndarray | None
    """(41,) the same for orientation similarity; None if there is none (no 2D metric, or an unknown alpha)"""


@dataclass(frozen=True, eq=False)
class KittiResult:
    """Average precisions in percent. A class that was never detected validly in a metric has no figure."""

    classes: tuple[str, ...]
    n_frames: int
    n_labels: int
    """label lines of all frames and types"""
    n_detections: int
    """detections of all frames and types"""
    curves: Mapping[tuple[str, str, str, str], Curve]
    """by (overlap, class, 'bbox' | 'bev' | '3d', difficulty); only what has a figure"""
    overlaps: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=lambda: OVERLAPS)
    """by 'official' | 'loose', class, metric: a match needs an overlap above this"""
    by_distance: Mapping[str, KittiResult] = field(default_factory=dict)
    """the same for the distance bands that were asked for, named '0-30' [m of depth]"""

    def ap(
        self, cls: str, metric: str, difficulty: str = "moderate", overlap: str = "official", recall: str = "R40"
    ) -> float:
        """Average precision [%]; NaN where there is no figure. Raises ValueError for a name that does not exist."""
        for name, value, accepted in (
            ("cls", cls, self.classes),
            ("metric", metric, METRICS),
            ("difficulty", difficulty, DIFFICULTIES),
            ("overlap", overlap, tuple(OVERLAPS)),
            ("recall", recall, tuple(RECALLS)),
        ):
            if value not in accepted:
                raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")
        curve = self.curves.get((overlap, cls, "bbox" if metric == "aos" else metric, difficulty))
        samples = None if curve is None else (curve.orientation if metric == "aos" else curve.precision)
        if samples is None:
            return math.nan
        return 100.0 * float(np.mean(samples[list(RECALLS[recall])]))

    def to_json(self) -> dict[str, Any]:
        """Plain dict: overlap -> class -> metric -> 'R40' | 'R11' -> [easy, moderate, hard], and the counts.

        A class or metric without a figure is left out; a figure that is not a number (no detection counted at a
        threshold) is None.
        """
        tree: dict[str, Any] = {"frames": self.n_frames, "classes": list(self.classes)}
        counts: dict[str, Any] = {"labels": self.n_labels, "detections": self.n_detections}
        for overlap in OVERLAPS:
            tree[overlap], counts[overlap] = {}, {}
            for cls in self.classes:
                metrics = {m: self._figures(cls, m, overlap) for m in METRICS if self._has(cls, m, overlap)}
                if metrics:
                    tree[overlap][cls] = metrics
                    counts[overlap][cls] = {m: self._counts(cls, m, overlap) for m in metrics if m != "aos"}
        tree["counts"] = counts
        if self.by_distance:
            tree["by_distance"] = {band: result.to_json() for band, result in self.by_distance.items()}
        return tree

    def _has(self, cls: str, metric: str, overlap: str) -> bool:
        curve = self.curves.get((overlap, cls, "bbox" if metric == "aos" else metric, DIFFICULTIES[0]))
        return curve is not None and (metric != "aos" or curve.orientation is not None)

    def _figures(self, cls: str, metric: str, overlap: str) -> dict[str, list[float | None]]:
        figures: dict[str, list[float | None]] = {}
        for recall in RECALLS:
            values = [self.ap(cls, metric, difficulty, overlap, recall) for difficulty in DIFFICULTIES]
            figures[recall] = [None if math.isnan(value) else value for value in values]
        return figures

    def _counts(self, cls: str, metric: str, overlap: str) -> dict[str, list[int]]:
        """Per difficulty; true and false positives at the last (lowest) threshold, 0 if there is none."""
        curves = [self.curves[overlap, cls, metric, difficulty] for difficulty in DIFFICULTIES]
        return {
            "valid_ground_truth": [curve.n_ground_truth for curve in curves],
            "valid_detections": [curve.n_detections for curve in curves],
            "true_positives": [int(curve.true_positives[-1]) if len(curve.thresholds) else 0 for curve in curves],
            "false_positives": [int(curve.false_positives[-1]) if len(curve.thresholds) else 0 for curve in curves],
        }

    def table(self) -> str:
        """All figures as text; '-' where there is none, 'nan' where one is not a number.

        A class that was never detected validly is one line.
        """
        lines = [f"{self.n_frames} frames, {self.n_labels} labels, {self.n_detections} detections; AP in percent"]
        for cls in self.classes:
            if cls in self.never_detected:
                lines += ["", f"{cls:<24}no valid detection, so no figures"]
                continue
            lines += ["", f"{cls:<24}{'R40':^27}   {'R11':^27}".rstrip()]
            lines.append(" " * 24 + "   ".join("".join(f"{name:>9}" for name in DIFFICULTIES) for _ in RECALLS))
            lines.append(f"{'ground truth that counts':<24}" + "".join(self._ground_truth(cls)))
            for overlap, minimums in self.overlaps.items():
                for metric in METRICS:
                    minimum = minimums[cls]["bbox" if metric == "aos" else metric]
                    cells = ["".join(self._cells(cls, metric, overlap, recall)) for recall in RECALLS]
                    lines.append(f"{overlap:<9} {_TITLES[metric]:<4} > {minimum:.2f}  " + "   ".join(cells))
        for band, result in self.by_distance.items():
            lines += ["", f"Depth {band} m: " + result.table()]
        return "\n".join(lines)

    @property
    def never_detected(self) -> tuple[str, ...]:
        """Classes without any figure."""
        return tuple(cls for cls in self.classes if all(key[1] != cls for key in self.curves))

    def rows(self, cls: str) -> list[list[str]]:
        """AP40 of a class as a table's cells, the header first; '-' also where there was nothing to find."""
        rows = [["AP40 [%]", "overlap", *DIFFICULTIES]]
        rows.append(["ground truth", "", *(cell.strip() for cell in self._ground_truth(cls))])
        for overlap, metric in _DISTINCT:
            minimum = self.overlaps[overlap][cls]["bbox" if metric == "aos" else metric]
            cells = [self._cell(cls, metric, difficulty, overlap) for difficulty in DIFFICULTIES]
            rows.append([_TITLES[metric], f"{overlap} {minimum:.2f}", *cells])
        return rows

    def distance_rows(self, cls: str) -> list[list[str]]:
        """AP40 'moderate' of a class by distance band, in the same form."""
        bands = {band: [row[3] for row in result.rows(cls)[1:]] for band, result in self.by_distance.items()}
        titles = [f"{_TITLES[metric]}{' loose' if overlap == 'loose' else ''}" for overlap, metric in _DISTINCT]
        return [["depth [m]", "ground truth", *titles], *([band, *cells] for band, cells in bands.items())]

    def _ground_truth(self, cls: str) -> list[str]:
        """How many objects a figure rests on; '-' where the class was never detected."""
        if not self._has(cls, "bbox", "official"):
            return [f"{'-':>9}"] * len(DIFFICULTIES)
        return [f"{self.curves['official', cls, 'bbox', name].n_ground_truth:>9}" for name in DIFFICULTIES]

    def _cells(self, cls: str, metric: str, overlap: str, recall: str) -> list[str]:
        if not self._has(cls, metric, overlap):
            return [f"{'-':>9}"] * len(DIFFICULTIES)
        return [f"{self.ap(cls, metric, difficulty, overlap, recall):9.2f}" for difficulty in DIFFICULTIES]

    def _cell(self, cls: str, metric: str, difficulty: str, overlap: str) -> str:
        curve = self.curves.get((overlap, cls, "bbox" if metric == "aos" else metric, difficulty))
        if curve is None or curve.n_ground_truth == 0 or (metric == "aos" and curve.orientation is None):
            return "-"
        return f"{self.ap(cls, metric, difficulty, overlap):.2f}"
