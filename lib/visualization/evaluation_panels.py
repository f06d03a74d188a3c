"""Panels of an evaluation: precision over recall, and depth errors over distance. From plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .panels import Line, Panel

_METRIC_TITLES = {"bbox": "2D box", "bev": "bird's eye view", "3d": "3D box"}
_DIFFICULTIES = ("easy", "moderate", "hard")
_DEPTH_FIGURES: dict[str, tuple[str, str, float, tuple[float, float | None] | None]] = {
    "median_absolute": ("median of |e|", "m", 1.0, (0, None)),
    "mean_relative": ("mean of |e| / z", "%", 100.0, (0, None)),
    "mean_signed": ("mean of e (positive: too far)", "m", 1.0, None),
    "recall": ("found in the image", "%", 100.0, (-4, 104)),
}
"""by field of ``DepthError``: title, unit, what a figure is multiplied by, limits of y; e is the error of depth z"""


class PrecisionCurve(NamedTuple):
    """Precision at recall 0, 1/40, 2/40, .."""

    cls: str
    metric: str
    """'bbox', 'bev' or '3d'"""
    difficulty: str
    overlap: str
    """'official' or 'loose'"""
    precision: np.ndarray
    """(T,) in 0..1, T <= 41"""
    ap: float
    """AP40 [%]"""


def precision_panels(classes: Sequence[str], curves: Sequence[PrecisionCurve]) -> list[Panel]:
    """Three panels for each class; loose overlaps are dashed, and left out in 2D, where they are the official ones."""
    panels = []
    for cls in classes:
        for metric, title in _METRIC_TITLES.items():
            lines = [
                Line(
                    f"{curve.difficulty}, {curve.overlap}: {curve.ap:.2f}",
                    (np.arange(len(curve.precision)) / 40).tolist(),
                    curve.precision.tolist(),
                    _DIFFICULTIES.index(curve.difficulty),
                    "dashed" if curve.overlap == "loose" else "solid",
                    points=False,
                )
                for curve in curves
                if (curve.cls, curve.metric) == (cls, metric) and not (curve.overlap == "loose" and metric == "bbox")
            ]
            panels.append(
                Panel(
                    *(f"{cls}, {title}", lines, "recall", "precision"),
                    x_limits=(0, 1),
                    y_limits=(0, 1.02),
                    legend_title="AP40",
                    nothing="nothing was found",
                )
            )
    return panels


def depth_error_panels(errors: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Panel]:
    """Four panels with a line for each class.

    ``errors``: by class the bands as ``DepthErrors.to_json`` has them: 'near' and 'far' [m], figures, None for none.
    """
    panels = []
    for key, (title, unit, scale, y_limits) in _DEPTH_FIGURES.items():
        lines, edges = [], set()
        for number, (cls, bands) in enumerate(errors.items()):
            middles = [0.5 * (band["near"] + band["far"]) for band in bands]
            values = [np.nan if band[key] is None else scale * band[key] for band in bands]
            edges |= {edge for band in bands for edge in (band["near"], band["far"])}
            lines.append(Line(cls, middles, values, number))
        panels.append(
            Panel(
                *(title, lines, "depth of ground truth [m]", unit),
                x_limits=(min(edges), max(edges)) if edges else None,
                y_limits=y_limits,
                x_ticks=sorted(edges),
                legend_title="",
                nothing="nothing was found",
            )
        )
    return panels
