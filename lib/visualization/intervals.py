"""Average precisions with their intervals, and differences between two results, as an image."""

import io
import math
from collections.abc import Sequence
from itertools import product

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..evaluation import DIFFICULTIES, METRIC_TITLES, KittiResult
from ..evaluation.bootstrap import LEVEL
from ..evaluation.protocol import DISTINCT, matched_by
from .panels import COLOURS

_ROW_INCH, _WIDTH_INCH, _DPI = 0.2, 7.2, 150
_SHIFT = 0.15  # [rows] between the two results in a row
_MARKS = ("o", "s")  # first and second result: told apart without colours, too


def render_intervals(
    result: KittiResult, other: KittiResult | None = None, names: Sequence[str] = (), suffix: str = ".png"
) -> bytes:
    """AP40 of each detected class, of both results if there are two, and their differences; a file of that suffix.

    ``names`` of the results. Raises ValueError where a result has no intervals, or both have different draws.
    """
    results = [result] if other is None else [result, other]
    missing = set.intersection(*(set(one.never_detected) for one in results))
    classes = [cls for cls in result.classes if cls not in missing] or list(result.classes)
    keys = [(overlap, metric, difficulty) for (overlap, metric), difficulty in product(DISTINCT, DIFFICULTIES)]
    columns, content = len(results), io.BytesIO()
    with matplotlib.rc_context({"text.parse_math": False}):
        height = len(classes) * (len(keys) * _ROW_INCH + 0.6) + 0.4
        figure = Figure(figsize=(_WIDTH_INCH, height), layout="constrained")
        for k, cls in enumerate(classes):
            axes = figure.add_subplot(len(classes), columns, columns * k + 1)
            axes.set_title(f"{cls}, AP40 [%]", fontsize=9, loc="left")
            _label_rows(axes, [f"{_title(result, cls, o, m)}, {d}" if d == "easy" else d for o, m, d in keys])
            for number, one in enumerate(results):
                for row, (overlap, metric, difficulty) in enumerate(keys):
                    low, high, _ = one.interval(cls, metric, difficulty, overlap)
                    place = row + (number - (columns - 1) / 2) * 2 * _SHIFT
                    _draw(axes, place, one.ap(cls, metric, difficulty, overlap), low, high, number)
            if other is not None:
                right = figure.add_subplot(len(classes), columns, columns * k + 2, sharey=axes)
                right.set_title("first minus second [points]", fontsize=9, loc="left")
                right.tick_params(axis="y", left=False, labelleft=False)
                right.axvline(0, color="#666666", linewidth=1.0, linestyle="dashed", zorder=1)
                for row, (overlap, metric, difficulty) in enumerate(keys):
                    change = result.difference(other, cls, metric, difficulty, overlap)
                    _draw(right, row, change.difference, change.low, change.high, 6)
                _style(right)
            _style(axes)
        titles = ["first: ", "second: "] if other is not None else [""]
        labels = [title + name for title, name in zip(titles, [*names, "", ""], strict=False)]
        marks = enumerate(zip(_MARKS, labels, strict=False))
        handles = [Line2D([], [], color=COLOURS[n], marker=mark, ms=3.5, label=label) for n, (mark, label) in marks]
        if result.replicates is not None:
            title = f"{LEVEL:.0%} intervals, {result.replicates.resampling.describe()}"
            figure.legend(handles=handles, loc="outside lower center", fontsize=7, title=title, title_fontsize=7)
        figure.savefig(content, format=suffix[1:].lower(), dpi=_DPI)
    return content.getvalue()


def _title(result: KittiResult, cls: str, overlap: str, metric: str) -> str:
    return f"{METRIC_TITLES[metric]} > {result.overlaps[overlap][cls][matched_by(metric)]:.2f}"


def _label_rows(axes: Axes, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    for row in range(0, len(labels), 2 * len(DIFFICULTIES)):  # every second group of rows has a grey ground
        axes.axhspan(row - 0.5, row + len(DIFFICULTIES) - 0.5, color="#F2F2F2", zorder=0)


def _draw(axes: Axes, row: float, value: float, low: float, high: float, number: int) -> None:
    """An interval and its figure; nothing where there is none."""
    if not math.isnan(value):
        axes.plot(value, row, marker=_MARKS[number % len(_MARKS)], ms=3.5, color=COLOURS[number], zorder=3)
        axes.plot([low, high], [row, row], color=COLOURS[number], linewidth=1.4, zorder=2)


def _style(axes: Axes) -> None:
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3, linewidth=0.6)
    axes.margins(x=0.08)
