"""Panels of an evaluation: precision over recall, and depth errors by distance."""

from collections.abc import Sequence
from itertools import product

from ..analysis.depth_error import DepthErrors
from ..evaluation import DIFFICULTIES, METRIC_TITLES, METRICS, OVERLAPS, RECALLS, KittiResult
from .panels import Line, Panel

_DEPTH_ERRORS: dict[str, tuple[str, str, float, tuple[float, float | None] | None]] = {
    "median_absolute": ("median of |e|", "m", 1.0, (0, None)),
    "mean_relative": ("mean of |e| / z", "%", 100.0, (0, None)),
    "mean_signed": ("mean of e (positive: too far)", "m", 1.0, None),
    "recall": ("found in the image", "%", 100.0, (0, 100)),
}
"""field of ``DepthError`` -> title, unit, factor of the values, limits of y; e is the error of depth z"""


def precision_panels(result: KittiResult, classes: Sequence[str] | None = None) -> list[Panel]:
    """Three panels for each class (default: all of ``result``): precision over recall in 2D, bird's-eye view and 3D.

    Loose overlaps are dashed, and left out in 2D, where they equal the official ones.
    """
    panels = []
    for cls, metric in product(result.classes if classes is None else classes, METRICS):
        if metric != "aos":
            title, lines = f"{cls}, {METRIC_TITLES[metric]}", _precision_lines(result, cls, metric)
            labels, limits = ("recall", "precision"), ((0, 1), (0, 1))
            panels.append(Panel(title, lines, *labels, *limits, None, "AP40", "nothing was found"))
    return panels


def _precision_lines(result: KittiResult, cls: str, metric: str) -> list[Line]:
    lines = []
    for overlap in OVERLAPS if metric != "bbox" else ("official",):
        for number, difficulty in enumerate(DIFFICULTIES):
            curve = result.curves.get((overlap, cls, metric, difficulty))
            if curve is not None and curve.n_ground_truth:
                label = f"{difficulty}, {overlap}: {result.ap(cls, metric, difficulty, overlap):.2f}"
                precision = curve.precision[: len(curve.thresholds)].tolist()  # up to the highest recall reached
                recall = [k / len(RECALLS["R40"]) for k in range(len(precision))]
                style = "dashed" if overlap == "loose" else "solid"
                lines.append(Line(label, recall, precision, number, style))
    return lines


def depth_error_panels(errors: Sequence[DepthErrors]) -> list[Panel]:
    """Four panels over the distance bands, with a line for each class."""
    edges = sorted({edge for own in errors for band in own.bands for edge in (band.near, band.far)})
    x_limits = (edges[0], edges[-1]) if edges else None
    x_label, empty_text = "depth of ground truth [m]", "nothing was found"
    panels = []
    for field, (title, unit, scale, y_limits) in _DEPTH_ERRORS.items():
        lines = []
        for number, own in enumerate(errors):
            middles = [0.5 * (band.near + band.far) for band in own.bands]
            lines.append(Line(own.cls, middles, [scale * getattr(band, field) for band in own.bands], number))
        panels.append(Panel(title, lines, x_label, unit, x_limits, y_limits, edges, "", empty_text))
    return panels
