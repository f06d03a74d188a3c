"""The ceiling of a representation, and why it is not 100: labels encoded, decoded again and evaluated as detections.

``repairs.explain_ceiling`` finds these figures. The points of all reasons and of AP40's own sampling sum up to
100 - ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.result import DIFFICULTIES

LOST = {
    "line": "label line beyond the 50 slots",
    "difficulty": "too hard for training's rule",
    "near": "nearer than 2 m",
    "far": "farther than 65 m",
    "outside": "centre outside the map",
    "cell": "same cell as a nearer object",
    "neighbour": "peak of a nearer one in the 3x3",
    "topk": "not among the best peaks",
}
"""why a label is not decoded, or with another one's values; and how tables say it"""
SPOILT = {
    "rows_2d": "2D box: rows by height ratio",
    "rows_3d": "location: rows by height ratio",
    "rotation": "rotation_y from alpha",
    "rounding": "two decimals of result files",
    "other": "the rest of what decoding spoils",
}
"""why a decoded label may be no match"""
REASONS = {**LOST, **SPOILT}
FARTHEST = 65.0
"""[m] training's limit; the ceiling is also given for ground truth within it"""
ORDERS = 5
"""of the scores, to see how much the order matters"""
SAMPLING = "sampling"
"""the last entry of ``Ceiling.points``: what is missing after all repairs"""

Triple = tuple[float, float, float]
"""easy, moderate, hard"""


class Missed(NamedTuple):
    """A ground truth that counts and is not matched."""

    frame: int
    line: int
    """from 0"""
    reasons: tuple[str | None, str | None, str | None]
    """at easy, moderate, hard; None where it does not count or is matched"""
    overlap: float
    """3D overlap of what was decoded for it, 0 where nothing was"""


@dataclass(frozen=True, eq=False)
class Ceiling:
    """What a class can reach at most, and why not more; 3D AP40 at the official overlap."""

    cls: str
    min_overlap: float
    ground_truth: tuple[int, int, int]
    """that counts"""
    ap: Triple
    ap_near: Triple
    """where only ground truth within ``FARTHEST`` counts"""
    spread: tuple[Triple, Triple]
    """least and largest ``ap`` over several orders of the scores"""
    overlaps: Triple
    """3D overlap of decoded ground truth (that counts at hard) with its label: least, 1st percentile, median"""
    points: Mapping[str, Triple]
    """AP that each of ``REASONS`` costs, and 'sampling'"""
    false_positives: Mapping[str, tuple[int, int, int]]
    """how many (at the lowest threshold) go with each repair"""
    misses: tuple[int, int, int]
    """by the evaluator's own matching"""
    missed: tuple[Missed, ...]
    """one by one"""

    def count(self, reason: str) -> tuple[int, int, int]:
        """Ground truth that counts and is missed for ``reason``."""
        easy, moderate, hard = (sum(m.reasons[k] == reason for m in self.missed) for k in range(3))
        return easy, moderate, hard

    @property
    def unexplained(self) -> tuple[int, int, int]:
        """Misses of the evaluator minus those with a reason: not 0 where a box is matched to a label not its own."""
        sums = np.sum([self.count(reason) for reason in REASONS], axis=0).tolist()
        easy, moderate, hard = (n - m for n, m in zip(self.misses, sums, strict=True))
        return easy, moderate, hard

    @property
    def costs(self) -> Mapping[str, str]:
        """What ``points`` is about, and how tables say it."""
        return {**REASONS, SAMPLING: "AP40's own sampling"}

    def to_json(self) -> dict[str, Any]:
        """Plain dict; of three figures each, easy, moderate and hard."""
        return {
            "class": self.cls,
            "overlap": self.min_overlap,
            "ground_truth": self.ground_truth,
            "ap": self.ap,
            f"ap_within_{FARTHEST:g}_m": self.ap_near,
            "ap_over_orders": self.spread,
            "decoded_overlap": {
                name: None if np.isnan(value) else value
                for name, value in zip(("least", "1st percentile", "median"), self.overlaps, strict=True)
            },
            "misses": self.misses,
            "unexplained": self.unexplained,
            "reasons": {
                name: {
                    "missed": self.count(name),
                    "false_positives": self.false_positives.get(name, (0, 0, 0)),
                    "points": self.points[name],
                }
                for name in self.costs
            },
        }

    def table(self) -> str:
        """All figures as text."""
        counts = self.misses, self.ground_truth
        least, hundredth, median = self.overlaps
        spread = "".join(f"{f'{low:.2f}..{high:.2f}':>16}" for low, high in zip(*self.spread, strict=True))
        rows = [
            f"{f'{self.cls}, 3D AP40 > {self.min_overlap:.2f}':<34}" + "".join(f"{name:>16}" for name in DIFFICULTIES),
            _row("ground truth that counts", self.ground_truth, "d"),
            _row("  matched [%]", [100 * (1 - m / n) if n else np.nan for m, n in zip(*counts, strict=True)], ".2f"),
            _row("ceiling [%]", self.ap, ".2f"),
            f"{f'  over {ORDERS} orders of the scores':<34}{spread}",
            _row(f"  ground truth within {FARTHEST:g} m", self.ap_near, ".2f"),
            f"3D overlap of decoded boxes with their labels: least {least:.3f}, 1st percentile {hundredth:.3f}, "
            f"median {median:.3f}",
            "",
            f"{'why it is not 100: missed, AP40':<34}" + "".join(f"{name:>16}" for name in DIFFICULTIES),
        ]
        for name, title in self.costs.items():
            rows.append(_costs(title, self.count(name), self.points[name]))
        if any(self.unexplained):
            rows.append(_costs("matched to another label", self.unexplained, (0.0, 0.0, 0.0)))
        sums = np.sum(list(self.points.values()), axis=0)
        rows.append(_costs("sum: all misses, 100 - ceiling", self.misses, sums))
        return "\n".join(rows)


def _row(title: str, values: Sequence[float], form: str) -> str:
    return f"{title:<34}" + "".join(f"{format(value, form):>16}" for value in values)


def _costs(title: str, missed: Sequence[int], points: Sequence[float]) -> str:
    cells = (f"{number:>8}{_points(value):>8}" for number, value in zip(missed, points, strict=True))
    return f"{title:<34}" + "".join(cells)


def _points(value: float) -> str:
    return f"{value + 0.0:.3f}" if abs(value) >= 5e-4 else "0"
