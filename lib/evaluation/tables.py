"""The text tables of results: average precisions, their intervals, and differences between two results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .protocol import AVERAGES, DIFFICULTIES, DISTINCT, METRIC_TITLES, METRICS, matched_by

if TYPE_CHECKING:
    from .result import KittiResult

_NO_AP = "no ground truth that counts, so there is no AP"  # a note says why
_TITLES = {"R40": "R40", "R11": "R11", "all": "all points"}
_WIDTHS = (28, 30)  # [characters] of a title and of a column with intervals: 118 in all
Cell = Callable[[str, str, str, str, str], str]  # class, metric, difficulty, overlap, recall


def ap_table(result: KittiResult) -> list[str]:
    """Lines with all average precisions; '-': there is none, 'nan': no number."""
    lines = []
    for cls in result.classes:
        if not result.has_ground_truth(cls):
            lines += ["", f"{cls:<24}{_NO_AP}"]
            continue
        lines += ["", f"{cls:<24}" + "   ".join(f"{_TITLES[recall]:^27}" for recall in AVERAGES).rstrip()]
        lines.append(" " * 24 + "   ".join(_align(DIFFICULTIES, 9) for _ in AVERAGES))
        lines.append(f"{'ground truth that counts':<24}" + _align(result.ground_truth(cls), 9))
        for overlap, metric in ((overlap, metric) for overlap in result.overlaps for metric in METRICS):
            cells = [_align(result.cells(cls, metric, overlap, recall), 9) for recall in AVERAGES]
            lines.append(_row_title(result, cls, metric, overlap) + "   ".join(cells))
    return lines


def interval_table(result: KittiResult) -> list[str]:
    """Lines with all average precisions and their intervals."""

    def cell(cls: str, metric: str, difficulty: str, overlap: str, recall: str) -> str:
        low, high, _ = result.interval(cls, metric, difficulty, overlap, recall)
        value = result.cells(cls, metric, overlap, recall)[DIFFICULTIES.index(difficulty)]
        return value if math.isnan(low) else f"{value} [{low:.2f}, {high:.2f}]"

    return _wide_table(result, cell)


def difference_table(first: KittiResult, second: KittiResult) -> list[str]:
    """Lines with all differences, first minus second: value, interval, and the share of replicates above 0."""

    def cell(cls: str, metric: str, difficulty: str, overlap: str, recall: str) -> str:
        change = first.difference(second, cls, metric, difficulty, overlap, recall)
        if math.isnan(change.difference) or math.isnan(change.low):
            return "-"
        return f"{change.difference:+.2f} [{change.low:+.2f}, {change.high:+.2f}] {_share(change.share_better):>4}"

    return _wide_table(first, cell)


def _wide_table(result: KittiResult, cell: Cell) -> list[str]:
    """One row for each metric, overlap and recall; 2D boxes have one overlap only."""
    lines = []
    for cls in result.classes:
        if not result.has_ground_truth(cls):
            lines += ["", f"{cls:<24}{_NO_AP}"]
            continue
        title, width = _WIDTHS
        lines += ["", f"{cls:<{title}}" + _align(DIFFICULTIES, width)]
        lines.append(f"{'ground truth that counts':<{title}}" + _align(result.ground_truth(cls), width))
        for overlap, metric in DISTINCT:
            for recall in AVERAGES:
                cells = [cell(cls, metric, difficulty, overlap, recall) for difficulty in DIFFICULTIES]
                lines.append(f"{_row_title(result, cls, metric, overlap) + recall:<{title}}" + _align(cells, width))
    return lines


def _row_title(result: KittiResult, cls: str, metric: str, overlap: str) -> str:
    minimum = result.overlaps[overlap][cls][matched_by(metric)]
    return f"{overlap:<9} {METRIC_TITLES[metric]:<4} > {minimum:.2f}  "


def _share(share: float) -> str:
    """In percent; 0 % and 100 % only where all replicates agree."""
    return "<1%" if 0 < share < 0.005 else ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def _align(cells: Sequence[str], width: int) -> str:
    return "".join(f" {cell:>{width - 1}}" for cell in cells)
