"""The figures of one run by name: AP40, depth errors, losses. Names are those of the tables and of the CSV files."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.metrics import read_metrics
from ..evaluation import DIFFICULTIES, METRIC_TITLES, OVERLAPS
from .planning import PlannedRun

MEDIAN_ERROR, FOUND = "depth error: median [m]", "found in the image [%]"


def read_figures(run: PlannedRun) -> dict[str, float]:
    """All figures of a finished run. Raises ValueError or OSError naming the file that cannot be read."""
    figures: dict[str, float] = {}
    for name, convert in (("ap.json", ap_figures), ("depth_error.json", depth_figures)):
        path = run.results / name
        if name == "depth_error.json" and not path.exists():  # a run of an older version: counted as without figure
            continue
        try:
            figures |= convert(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return figures | loss_figures(read_metrics(run.folder / "metrics.jsonl"))


def main_figures(classes: Sequence[str]) -> list[str]:
    """Names of the figures that are printed and drawn."""
    main = ["3D moderate AP40", "3D moderate AP40 loose", "BEV moderate AP40", "2D moderate AP40"]
    main += [MEDIAN_ERROR, FOUND]
    return [f"{cls} {figure}" for cls in classes for figure in main]


def ap_name(cls: str, metric: str, difficulty: str, overlap: str) -> str:
    """'Car 3D moderate AP40', 'Car 3D moderate AP40 loose'."""
    return f"{cls} {METRIC_TITLES[metric]} {difficulty} AP40" + " loose" * (overlap == "loose")


def ap_figures(ap: Mapping[str, Any]) -> dict[str, float]:
    """AP40 [%] of an ap.json by :func:`ap_name`; NaN where there is no ground truth. 2D boxes have one overlap only.

    0 where there is ground truth and no detection has the fields that the metric needs: such a run must not be left
    out of its arm's mean. Raises ValueError for anything but an ap.json.
    """
    figures = {}
    try:
        for cls in ap["classes"]:
            for overlap in OVERLAPS:
                for metric in ("3d", "bev") if overlap == "loose" else ("3d", "bev", "bbox"):
                    values = ap[overlap].get(cls, {}).get(metric, {}).get("R40", [None] * len(DIFFICULTIES))
                    for difficulty, value, n in zip(DIFFICULTIES, values, _ground_truth(ap, cls), strict=True):
                        figure = 0.0 if value is None and n else _to_float(value)
                        figures[ap_name(cls, metric, difficulty, overlap)] = figure
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the JSON of an evaluation: {error!r}") from None
    return figures


def _ground_truth(ap: Mapping[str, Any], cls: str) -> list[int]:
    """By difficulty; 0 where an older ap.json has no counts."""
    counts = ap.get("counts", {}).get("official", {}).get(cls, {})
    return next((metric["valid_ground_truth"] for metric in counts.values()), [0] * len(DIFFICULTIES))


def depth_figures(depth: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Depth errors of a depth_error.json: 'Car depth error: median [m]', '.. median, 10-20 m [m]' and so on.

    'Car found in the image [%]' is the share of objects that the errors are computed from. NaN where there is no
    figure. Raises ValueError for anything but a depth_error.json.
    """
    figures = {}
    try:
        for errors in depth:
            cls, total = errors["class"], errors["total"]
            figures[f"{cls} {MEDIAN_ERROR}"] = _to_float(total["median_absolute"])
            figures[f"{cls} depth error: mean [m]"] = _to_float(total["mean_absolute"])
            figures[f"{cls} depth error: mean relative [%]"] = 100 * _to_float(total["mean_relative"])
            figures[f"{cls} {FOUND}"] = 100 * _to_float(total["recall"])
            for band in errors["bands"]:
                name = f"{cls} depth error: median, {band['near']:g}-{band['far']:g} m [m]"
                figures[name] = _to_float(band["median_absolute"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not the JSON of depth errors: {error!r}") from None
    return figures


def loss_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last epoch's losses, and the share of steps in which each one was exactly 0, as a mean over the epochs."""
    losses = records[-1]["losses"]
    zero = {name: math.fsum(record.get("zero_share", {}).get(name, 0.0) for record in records) for name in losses}
    figures = {f"final loss: {name}": float(value) for name, value in losses.items()}
    return figures | {f"steps with loss 0 [%]: {name}": 100 * zero[name] / len(records) for name in losses}


def _to_float(value: float | None) -> float:
    return math.nan if value is None else float(value)
