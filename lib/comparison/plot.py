"""A comparison as an image: every run, means, and intervals.

Arms are told apart by their row, so one colour is enough: the image is readable in black and white, and with every kind
of colour vision.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..evaluation.bootstrap import Interval
from .statistics import LEVEL, summarize
from .table import NO_INTERVAL, Comparison

_WIDTH_INCH = 7.2  # width of a page's text: letters keep their size in print
_BLACK, _GREY, _SKY_BLUE = "#000000", "#666666", "#56B4E9"  # the last one is of Okabe & Ito's palette
_SEED_STYLE: dict[str, Any] = {"linestyle": "", "marker": "o", "ms": 4.5, "mfc": _SKY_BLUE, "mec": _BLACK, "mew": 0.6}
_MEAN_STYLE: dict[str, Any] = {"marker": "D", "ms": 4.5, "color": _BLACK, "linewidth": 1.6}
_BOOTSTRAP_STYLE: dict[str, Any] = {"color": _GREY, "linewidth": 3.0, "solid_capstyle": "butt"}
# [rows] below a row's middle: seeds lie below the mean and at different heights, so that nothing is hidden
_MEAN_OFFSET, _BOOTSTRAP_OFFSET, _SEED_OFFSETS = -0.18, -0.36, (0.06, 0.34)


def plot_comparison(comparison: Comparison, figures: Sequence[str]) -> bytes:
    """For each of ``figures`` a panel with all arms, and one with the differences to the first arm. Returns a PNG."""
    arms = comparison.arms
    columns = 2 if len(arms) > 1 else 1
    height = len(figures) * (0.6 + 0.28 * len(arms)) + 0.4
    with matplotlib.rc_context({"text.parse_math": False}):  # names are text
        image = Figure(figsize=(_WIDTH_INCH, height), layout="constrained")
        for k, name in enumerate(figures):
            left = image.add_subplot(len(figures), columns, columns * k + 1)
            intervals = [comparison.interval(arm, name) for arm in arms]
            _draw_panel(left, comparison, [comparison.values(arm, name) for arm in arms], intervals)
            left.set_title(name, fontsize=9, loc="left")
            if "[%]" in name or "AP40" in name:  # an interval may reach beyond what a percentage can be
                low, high = left.get_xlim()
                left.set_xlim(max(low, -4.0), min(high, 104.0))  # marks at 0 and 100 stay whole
            if columns == 2:
                right = image.add_subplot(len(figures), columns, columns * k + 2, sharey=left)
                intervals = [NO_INTERVAL, *(comparison.interval_of_difference(arm, name) for arm in arms[1:])]
                changes = [{}, *(comparison.differences(arm, name) for arm in arms[1:])]
                _draw_panel(right, comparison, changes, intervals)
                right.tick_params(axis="y", left=False, labelleft=False)
                right.axvline(0, color=_GREY, linewidth=1.0, linestyle="dashed", zorder=1)
                right.set_title(f"difference to {arms[0]}, by seed", fontsize=9, loc="left")
        handles = [Line2D([], [], **_SEED_STYLE), Line2D([], [], **_MEAN_STYLE)]
        labels = ["one seed", f"mean, {LEVEL:.0%} interval over seeds"]
        if comparison.replicates:
            handles.append(Line2D([], [], **_BOOTSTRAP_STYLE))
            labels.append(f"{LEVEL:.0%} interval over {comparison.unit}")
        image.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
        png = io.BytesIO()
        image.savefig(png, format="png", dpi=200)
    return png.getvalue()


def _draw_panel(
    axes: Axes, comparison: Comparison, values_of_arms: Sequence[Mapping[int, float]], intervals: Sequence[Interval]
) -> None:
    """One row per arm, from top to bottom. NaN is not drawn, and a row without values is empty."""
    steps = max(1, len(comparison.seeds) - 1)
    for row, values in enumerate(values_of_arms):
        for seed, value in values.items():
            share = comparison.seeds.index(seed) / steps
            height = row + _SEED_OFFSETS[0] + share * (_SEED_OFFSETS[1] - _SEED_OFFSETS[0])
            axes.plot(value, height, **_SEED_STYLE, zorder=2)
        sample, style = summarize(values.values()), {**_MEAN_STYLE, "capsize": 3.5, "capthick": 1.6}
        low, high, _ = intervals[row]
        axes.plot([low, high], [row + _BOOTSTRAP_OFFSET] * 2, **_BOOTSTRAP_STYLE, zorder=2)
        margin = sample.high - sample.mean
        axes.errorbar(sample.mean, row + _MEAN_OFFSET, xerr=margin, linestyle="", zorder=3, **style)
    axes.set_yticks(range(len(comparison.arms)), comparison.arms, fontsize=8)
    axes.set_ylim(len(comparison.arms) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3, linewidth=0.6)
    axes.margins(x=0.08)
