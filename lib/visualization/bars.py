"""Bars of AP, one group for each quantity that ground truth has replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..system.files import atomic_write

_DIFFICULTIES = ("easy", "moderate", "hard")
_COLOURS = ("#56B4E9", "#0072B2", "#000000")
"""light to dark, so that they stay apart in black and white"""
_METRICS = {"3d": "3D", "bev": "bird's eye view"}
_OVERLAPS = ("official", "loose")


def plot_replaced(figures: Mapping[str, Any], titles: Mapping[str, str], path: Path) -> Path:
    """AP40 with each quantity replaced, beside that of the prediction, which also stands as a line; a PNG.

    Args:
        figures: class -> 'official' | 'loose' -> '3d' | 'bev' -> quantity -> [easy, moderate, hard] [%] or None.
        titles: the quantities to draw and what they are called; the first one is the prediction.

    Returns:
        ``path``.
    """
    rows = [(cls, overlap) for cls in figures for overlap in _OVERLAPS]
    figure = Figure(figsize=(6.2 * len(_METRICS), 2.9 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(_METRICS), squeeze=False)
    for row, (cls, overlap) in enumerate(rows):
        for column, (metric, name) in enumerate(_METRICS.items()):
            groups = {title: figures[cls][overlap][metric][quantity] for quantity, title in titles.items()}
            _draw(axes[row][column], groups)
            axes[row][column].set_title(f"{cls}, {name}, {overlap} overlap", fontsize=10)
    axes[0][0].legend(title="difficulty", fontsize=8, title_fontsize=8, loc="upper left")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return path


def _draw(axes: Axes, groups: Mapping[str, Sequence[float | None]]) -> None:
    values = np.array([[np.nan if v is None else v for v in figures] for figures in groups.values()], dtype=np.float64)
    places = np.arange(len(values))
    for k, (difficulty, colour) in enumerate(zip(_DIFFICULTIES, _COLOURS, strict=True)):
        axes.bar(places + 0.27 * (k - 1), values[:, k], 0.25, color=colour, label=difficulty)
        axes.axhline(values[0, k], color=colour, linewidth=0.8, linestyle="dashed")
    axes.set_xticks(places, [title.replace(" ", "\n") for title in groups], fontsize=8)
    axes.set_ylabel("AP40 [%]", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    highest = np.nanmax(values) if np.isfinite(values).any() else 0.0
    axes.set_ylim(0, min(100.0, 1.15 * highest) if highest > 0 else 1.0)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no figures", ha="center", va="center", transform=axes.transAxes)
