"""Small line plots ("panels"), one or many in a figure: training curves, precision over recall, depth errors.

Lines differ in colour (for every kind of colour vision) and in line style (for black-and-white print).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

FORMATS = (".png", ".pdf", ".svg")
PANEL_SIZE = (3.2, 2.4)  # [inch] of one panel: three side by side stay readable at the width of a page

# Okabe and Ito's palette, without its yellow, which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("solid", "dashed", "dashdot", "dotted", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MANY_POINTS = 40
_LEGEND_COLUMNS = 2
_DPI = 150


@dataclass(frozen=True)
class Line:
    """One line of a panel. Values that are not finite are gaps."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    number: int = 0  # chooses colour and style; lines of the same number look the same in all panels
    style: str | None = None  # replaces the number's line style, and the marks that lines of fewer than 40 points have

    @property
    def plot_options(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib's ``Line2D``."""
        style = self.style or STYLES[self.number % len(STYLES)]
        marker = "." if self.style is None and len(self.x) < _MANY_POINTS else ""
        return {"color": COLOURS[self.number % len(COLOURS)], "linestyle": style, "marker": marker, "linewidth": 1.3}


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str = ""
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float | None] | None = None  # an upper limit of None follows from the data
    x_ticks: Sequence[float] | None = None  # default: chosen by matplotlib, at whole numbers if all x are ``int``
    legend_title: str | None = None  # title of a legend below the panel; None: no legend
    empty_text: str = "no figures"  # text of a panel without lines to draw

    @property
    def legend_height(self) -> float:
        """[inch] below the panel."""
        if self.legend_title is None:
            return 0.0
        rows = -(-len(self.drawn_lines) // _LEGEND_COLUMNS)
        return 0.13 * (rows + bool(self.legend_title)) + 0.1

    @property
    def drawn_lines(self) -> list[Line]:
        """The lines that have a finite value."""
        return [line for line in self.lines if np.isfinite(np.asarray(line.y, dtype=np.float64)).any()]


def check_format(path: Path, option: str) -> None:
    """Raise ValueError if ``path``, the value of ``option``, is a folder or has no suffix of ``FORMATS``."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the name of a file")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{option} must end in {', '.join(FORMATS)}, got {path.name!r}")


def render_panels(panels: list[Panel], suffix: str = ".png", columns: int = 3, shared_legend: bool = False) -> bytes:
    """All panels as one figure, ``columns`` in a row; the content of a file with this suffix, one of ``FORMATS``.

    ``shared_legend``: one legend below all panels, with each label once.
    """
    content = io.BytesIO()
    with matplotlib.rc_context({"text.parse_math": False}):  # the name of a run may contain $
        rows = max(1, -(-len(panels) // columns))
        height = PANEL_SIZE[1] + max((panel.legend_height for panel in panels), default=0.0)
        figure = Figure(figsize=(PANEL_SIZE[0] * columns, height * rows), layout="constrained")
        for place, panel in enumerate(panels, 1):
            draw_panel(figure.add_subplot(rows, columns, place), panel)
        if shared_legend:
            unique = {line.label: line for panel in panels for line in panel.lines}
            handles, labels = _legend_entries(list(unique.values()))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, handlelength=3)
        figure.savefig(content, format=suffix[1:].lower(), dpi=_DPI)
    return content.getvalue()


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw ``panel`` into ``axes``."""
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.x_label, fontsize=8)
    axes.set_ylabel(panel.y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3, linewidth=0.6)
    lines = panel.drawn_lines
    for line in lines:
        values = np.asarray(line.y, dtype=np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
        low, high = panel.y_limits or (None, None)
        beyond = (low is not None and np.nanmin(values) < low) or (high is not None and np.nanmax(values) > high)
        # a mark on the edge, such as that of 100 %, is drawn whole
        axes.plot(line.x, values, clip_on=bool(beyond), **line.plot_options)
    if panel.x_limits:
        axes.set_xlim(panel.x_limits)
    if panel.y_limits:
        axes.set_ylim(bottom=panel.y_limits[0], top=panel.y_limits[1])
    if panel.x_ticks is not None:
        axes.set_xticks(panel.x_ticks)
    elif lines and all(isinstance(x, int) for line in lines for x in line.x):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if not lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, panel.empty_text, ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    if panel.y_limits is None:
        _widen_constant_axis(axes)
    if panel.legend_title is not None:  # below the axis and its title, where it hides no data
        sizes: dict[str, Any] = {"fontsize": 6.5, "title_fontsize": 6.5, "ncols": _LEGEND_COLUMNS, "frameon": False}
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22)}
        handles, labels = _legend_entries(lines)
        axes.legend(handles, labels, title=panel.legend_title or None, **sizes, **place)


def _widen_constant_axis(axes: Axes) -> None:
    """Show at least a fifth of the values' size: matplotlib would magnify differences of rounding."""
    low, high = axes.get_ylim()
    middle = 0.5 * (low + high)
    half = max(0.5 * (high - low), 0.1 * abs(middle), 1e-9)
    axes.set_ylim(middle - half, middle + half)


def _legend_entries(lines: Sequence[Line]) -> tuple[list[Line2D], list[str]]:
    """Handles and labels. A space precedes an underscore: matplotlib leaves out labels that begin with one."""
    handles = [Line2D([], [], **line.plot_options) for line in lines]
    return handles, [f" {line.label}" if line.label.startswith("_") else line.label for line in lines]
