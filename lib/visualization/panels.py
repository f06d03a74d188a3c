"""Small line plots ("panels"): many in one figure, or each as an image of its own.

Plots of trainings, of precision and of depth errors are lists of panels; how they look is decided here. Lines differ in
colour (told apart with every kind of colour vision) and in style (told apart in black and white).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..system.files import atomic_write

FORMATS = (".png", ".pdf", ".svg")
PANEL_SIZE = (3.2, 2.4)
"""[inch] of one panel: three side by side, shrunk to a page's width, can still be read"""

# Okabe & Ito's palette, without its yellow, which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("solid", "dashed", "dashdot", "dotted", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MANY_POINTS = 40
_DPI = 150


@dataclass(frozen=True)
class Line:
    """Points that belong together. Values that are not finite are gaps."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    number: int = 0
    """which colour and style; lines of one number look the same in all panels"""
    style: str | None = None
    """instead of the number's own style"""
    points: bool = True
    """mark the points themselves, where they are few"""

    @property
    def look(self) -> dict[str, Any]:
        """What matplotlib is told."""
        style = self.style or STYLES[self.number % len(STYLES)]
        marker = "." if self.points and len(self.x) < _MANY_POINTS else ""
        return {"color": COLOURS[self.number % len(COLOURS)], "linestyle": style, "marker": marker, "linewidth": 1.3}


@dataclass(frozen=True)
class Panel:
    """One small plot."""

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str = ""
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float | None] | None = None
    """an upper limit of None is left to the data"""
    x_ticks: Sequence[float] | None = None
    """default: some that matplotlib chooses"""
    whole_x: bool = False
    """then only whole numbers"""
    legend_title: str | None = None
    """a legend inside this panel, with this title; None: no legend"""
    nothing: str = "no figures"
    """said where there is no line to draw"""

    @property
    def drawn(self) -> list[Line]:
        """The lines that have a finite value."""
        return [line for line in self.lines if np.isfinite(np.asarray(line.y, dtype=np.float64)).any()]


def check_format(path: Path, option: str) -> None:
    """Raise ValueError for a path that no figure can be saved under; ``option``: where it was given."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the name of a file")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{option} must end in {', '.join(FORMATS)}, got {path.name!r}")


def save_panels(panels: Sequence[Panel], path: Path, columns: int = 3, shared_legend: bool = False) -> None:
    """All panels as one figure; its form by the path's suffix.

    ``shared_legend``: one legend below all panels, with each label once. Raises ValueError for another suffix.
    """
    check_format(path, "the figure's path")
    with matplotlib.rc_context({"text.parse_math": False}):  # a run may be called $1
        rows = max(1, -(-len(panels) // columns))
        figure = Figure(figsize=(PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows), layout="constrained")
        FigureCanvasAgg(figure)
        for place, panel in enumerate(panels, 1):
            _draw(figure.add_subplot(rows, columns, place), panel)
        if shared_legend:
            _add_shared_legend(figure, panels, columns)
        with atomic_write(path) as file:
            figure.savefig(file, format=path.suffix[1:].lower(), dpi=_DPI)


def panel_png(panel: Panel) -> bytes:
    """One panel as an image of its own."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=PANEL_SIZE, layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure.add_subplot(), panel)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.x_label, fontsize=8)
    axes.set_ylabel(panel.y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3, linewidth=0.6)
    for line in panel.drawn:
        values = np.asarray(line.y, dtype=np.float64)
        axes.plot(line.x, np.where(np.isfinite(values), values, np.nan), **line.look)
    if panel.legend_title is not None:
        axes.margins(y=0.25)  # room for the legend
    if panel.x_limits:
        axes.set_xlim(panel.x_limits)
    if panel.y_limits:
        axes.set_ylim(bottom=panel.y_limits[0], top=panel.y_limits[1])
    if panel.x_ticks is not None:
        axes.set_xticks(panel.x_ticks)
    elif panel.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if not panel.drawn:
        axes.text(0.5, 0.5, panel.nothing, ha="center", va="center", fontsize=8, transform=axes.transAxes)
    elif panel.legend_title is not None:
        title = panel.legend_title or None
        axes.legend(*_entries(panel.drawn), title=title, fontsize=6.5, title_fontsize=6.5, framealpha=0.6)


def _add_shared_legend(figure: Figure, panels: Sequence[Panel], columns: int) -> None:
    unique = {line.label: line for panel in panels for line in panel.lines}
    handles, labels = _entries(list(unique.values()))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, handlelength=3)


def _entries(lines: Sequence[Line]) -> tuple[list[Line2D], list[str]]:
    """Samples and texts of a legend. matplotlib leaves out texts that begin with an underscore."""
    handles = [Line2D([], [], **line.look) for line in lines]
    return handles, [f" {line.label}" if line.label.startswith("_") else line.label for line in lines]
