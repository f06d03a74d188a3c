"""A comparison of configurations ("arms") as an image: every run, means, and intervals.

One colour is enough, since arms are told apart by their place: it reads in black and white and with every kind of
colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..system.files import atomic_write

_WIDTH = 7.2
"""[inch], that of a page's text: letters keep their size in print"""
_BLACK, _GREY, _BLUE = "#000000", "#666666", "#56B4E9"  # the last one is Okabe & Ito's sky blue
_SEED_LOOK: dict[str, Any] = {"linestyle": "", "marker": "o", "ms": 4.5, "mfc": _BLUE, "mec": _BLACK, "mew": 0.6}
_MEAN_LOOK: dict[str, Any] = {"marker": "D", "ms": 4.5, "color": _BLACK}
_MEAN_PLACE, _SEED_PLACES = -0.18, (0.06, 0.34)
"""[rows] below a row's middle: seeds lie below the mean, and beside each other, so that nothing hides anything"""


@dataclass(frozen=True)
class Row:
    """One arm in one panel."""

    arm: str
    values: Mapping[int, float]
    """by seed; NaN is not drawn"""
    mean: float
    """NaN is not drawn"""
    margin: float
    """the interval is mean - margin .. mean + margin; NaN is not drawn"""


@dataclass(frozen=True)
class Panels:
    """One figure that was compared: all arms, and the differences of all of them to the first."""

    title: str
    own: Sequence[Row]
    differences: Sequence[Row]


def plot_arms(figures: Sequence[Panels], interval: str, path: Path) -> Path:
    """Two panels for each of ``figures``, side by side, as a PNG. Returns ``path``.

    ``interval``: what the bars are, such as '95 % interval'. A seed's dots lie at the same height within every row.
    """
    rows = max(len(panels.own) for panels in figures)
    height = len(figures) * (0.6 + 0.28 * rows) + 0.4
    seeds = sorted({seed for panels in figures for row in panels.own for seed in row.values})
    columns = 2 if rows > 1 else 1
    with matplotlib.rc_context({"text.parse_math": False}):  # names are text
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        for k, panels in enumerate(figures):
            left = figure.add_subplot(len(figures), columns, columns * k + 1)
            _draw(left, panels.own, seeds)
            left.set_title(panels.title, fontsize=9, loc="left")
            if columns == 2:
                right = figure.add_subplot(len(figures), columns, columns * k + 2, sharey=left)
                _draw(right, panels.differences, seeds)
                right.tick_params(axis="y", left=False, labelleft=False)
                right.axvline(0, color=_GREY, linewidth=1.0, linestyle="dashed", zorder=1)
                right.set_title(f"difference to {panels.own[0].arm}, by seed", fontsize=9, loc="left")
        handles = [Line2D([], [], **_SEED_LOOK), Line2D([], [], **_MEAN_LOOK, linewidth=1.6)]
        figure.legend(handles, ["one seed", f"mean, {interval}"], loc="outside lower center", ncols=2, fontsize=9)
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=200)
    return path


def _draw(axes: Axes, rows: Sequence[Row], seeds: Sequence[int]) -> None:
    """Rows from the top to the bottom. A row without values stays empty."""
    for place, row in enumerate(rows):
        for seed, value in row.values.items():
            share = seeds.index(seed) / max(1, len(seeds) - 1)
            height = place + _SEED_PLACES[0] + share * (_SEED_PLACES[1] - _SEED_PLACES[0])
            axes.plot(value, height, **_SEED_LOOK, zorder=2)
        height = place + _MEAN_PLACE
        if not math.isnan(row.mean):
            axes.plot(row.mean, height, **_MEAN_LOOK, linestyle="", zorder=3)
        if not math.isnan(row.margin):
            ends = [row.mean - row.margin, row.mean + row.margin]
            axes.plot(ends, [height, height], color=_BLACK, linewidth=1.6, zorder=3)
            axes.plot(ends, [height, height], "|", color=_BLACK, ms=7, mew=1.6, zorder=3)
    axes.set_yticks(range(len(rows)), [row.arm for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3, linewidth=0.6)
    axes.margins(x=0.08)
