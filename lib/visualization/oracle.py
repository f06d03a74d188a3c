"""Bars of AP, one group for each quantity that ground truth has replaced."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis.oracle import METRICS, PREDICTED, QUANTITIES, TITLES, Oracle
from ..evaluation import DIFFICULTIES, METRIC_TITLES, OVERLAPS

_COLOURS = ("#56B4E9", "#0072B2", "#000000")  # light to dark, which is visible in black and white too


def oracle_png(oracle: Oracle) -> bytes:
    """A PNG: AP40 with each quantity replaced; the AP of the prediction is also a dashed line."""
    rows = [(cls, overlap) for cls in oracle.classes for overlap in OVERLAPS]
    figure = Figure(figsize=(6.2 * len(METRICS), 2.9 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(METRICS), squeeze=False)
    for (cls, overlap), row in zip(rows, panels, strict=True):
        for metric, axes in zip(METRICS, row, strict=True):
            axes.set_title(f"{cls}, {METRIC_TITLES[metric]}, {overlap} overlap", fontsize=10)
            _draw(axes, np.array([oracle.ap(name, cls, metric, overlap) for name in (PREDICTED, *QUANTITIES)]))
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, title="difficulty", fontsize=8, loc="outside lower center", ncols=3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _draw(axes: Axes, values: np.ndarray) -> None:
    """``values``: (1 + quantities, difficulties) [%]."""
    places = np.arange(len(values))
    for k, (difficulty, colour) in enumerate(zip(DIFFICULTIES, _COLOURS, strict=True)):
        axes.bar(places + 0.27 * (k - 1), values[:, k], 0.25, color=colour, label=difficulty)
        axes.axhline(values[0, k], color=colour, linewidth=0.8, linestyle="dashed")
    axes.set_xticks(places, [TITLES[name].replace(" ", "\n") for name in (PREDICTED, *QUANTITIES)], fontsize=8)
    axes.set_ylabel("AP40 [%]", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    highest = np.nanmax(values, initial=0.0)
    axes.set_ylim(0, min(100.0, 1.15 * highest) if highest > 0 else 1.0)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if np.isnan(values).all():
        axes.text(0.5, 0.5, "no figures", ha="center", va="center", transform=axes.transAxes)
