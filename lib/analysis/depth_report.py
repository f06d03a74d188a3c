"""All figures of one model's depth space, and those of several models as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation.kitti import DISTANCE_BANDS, Band
from .depth_readout import NAMES, measure_readouts
from .depth_space import (
    BoundCounts,
    Bounds,
    DescribedObjects,
    Pairs,
    batch_numbers,
    measure_batches,
    measure_pairs,
    sample_pairs,
)

FINE_BANDS: tuple[Band, ...] = tuple((float(near), near + 10.0) for near in range(0, 70, 10))
"""[m] of depth, for images"""
SHARES = (("inside both bounds", "inside"), ("too far apart", "above"), ("too close", "below"))
"""what each share of pairs means, and its key"""
_LABEL = 46


def measure_depth_space(
    held_out: DescribedObjects,
    fit: DescribedObjects,
    batches: Sequence[BoundCounts],
    bounds: Bounds,
    batch_size: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Pairs]]:
    """The figures of one model by name, NaN where undefined; and the pairs of held-out objects that they are about.

    Pairs are those of one frame (``within_frames``), and those of one batch if frames come ``batch_size`` at a time in
    random order (``within_batches``, the former among them). ``batches``: counts of training batches.
    """
    groups = {
        "within_frames": held_out.frames,
        "within_batches": batch_numbers(held_out.frames, held_out.n_frames, batch_size, seed),
    }
    pairs = {name: sample_pairs(held_out.descriptors, held_out.depths, g, seed) for name, g in groups.items()}
    figures = {
        "frames": {"split": held_out.n_frames, "fit_split": fit.n_frames},
        "objects": {"split": len(held_out.depths), "fit_split": len(fit.depths)},
        "bounds": {"K": bounds.K, "B": bounds.B, "rad": bounds.max_depth_distance},
        "batch_size": batch_size,
        "seed": seed,
        "pairs": {name: measure_pairs(some, bounds) for name, some in pairs.items()},
        "training_batches": measure_batches(batches),
        "readout": measure_readouts(fit, held_out, (*DISTANCE_BANDS, *FINE_BANDS)),
    }
    return figures, pairs


def error_by_distance(figures: dict[str, Any], readout: str, bands: Sequence[Band] = FINE_BANDS) -> np.ndarray:
    """Mean absolute error of one read-out [m] in each band, (D,), NaN where there is no object."""
    by_distance = figures["readout"]["errors"][readout]["by_distance"]
    return np.array([by_distance[f"{near:g}-{far:g}"]["mean"] for near, far in bands])


def depth_space_table(models: Sequence[dict[str, Any]]) -> str:
    """Figures of :func:`measure_depth_space` with a ``name`` each: a column a model, and a block for its read-outs."""
    names = [str(m["name"]) for m in models]
    width = max(20, *(len(name) + 2 for name in names))

    def row(label: str, cells: Sequence[str]) -> str:
        return (f"{label:<{_LABEL}}" + "".join(f"{cell:>{width}}" for cell in cells)).rstrip()

    bounds = [m["bounds"] for m in models]
    lines = [
        row("", names),
        row("frames, split / fit split", [f"{m['frames']['split']} / {m['frames']['fit_split']}" for m in models]),
        row("objects, split / fit split", [f"{m['objects']['split']} / {m['objects']['fit_split']}" for m in models]),
        row("bounds: K, B, rad", [f"{b['K']:g}, {b['B']:g}, {b['rad']:g} m" for b in bounds]),
    ]
    for title, key in (("pairs within a frame", "within_frames"), ("pairs within a random batch", "within_batches")):
        columns = [_pair_rows(title, m["pairs"][key]) for m in models]
        lines += ["", *(row(label, [column[label] for column in columns]) for label in columns[0])]
    columns = [_batch_rows(m["training_batches"]) for m in models]
    lines += ["", *(row(label, [column[label] for column in columns]) for label in columns[0])]
    for model in models:
        lines += ["", *_readout_rows(model)]
    return "\n".join(lines)


def without_nan(value: Any) -> Any:
    """JSON has no NaN: what is undefined becomes None, in nested dicts and lists."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _pair_rows(title: str, pairs: dict[str, Any]) -> dict[str, str]:
    drawn = pairs["measured"] < pairs["total"]
    return {
        title: f"{pairs['measured']} of {pairs['total']}" if drawn else str(pairs["total"]),
        "  with d_z <= rad": str(pairs["within_rad"]),
        **{f"    {label}": _percent(pairs[key]) for label, key in SHARES},
        "    rank correlation of d_f and d_z": _number(pairs["spearman_within_rad"], 3),
        "  rank correlation over all depth distances": _number(pairs["spearman"], 3),
    }


def _batch_rows(batches: dict[str, Any]) -> dict[str, str]:
    return {
        "training batches": str(batches["batches"]),
        "  official loss is not 0: both bounds violated": _percent(batches["both_bounds_violated"]),
        "  it is 0: all violators are too far apart": _percent(batches["only_above"]),
        "  it is 0: all violators are too close": _percent(batches["only_below"]),
        "  it is 0: no violator": _percent(batches["none_violated"]),
        "  it is 0: no pair with d_z <= rad": _percent(batches["no_pairs"]),
        "  pairs with d_z <= rad in a batch": _number(batches["pairs_per_batch"], 1),
        **{f"    {label}": _percent(batches[key]) for label, key in SHARES},
    }


def _readout_rows(model: dict[str, Any]) -> list[str]:
    errors = model["readout"]["errors"]
    bands = [f"{near:g}-{far:g}" for near, far in DISTANCE_BANDS]
    counts = [f"{band} m ({errors['mean']['by_distance'][band]['count']})" for band in bands]
    head = "".join(f"{text:>16}" for text in ("mean", "median", "relative", *counts))
    lines = [f"{model['name']}: absolute error of read-outs [m]; by distance its mean (and the number of objects)"]
    lines.append(" " * 32 + head)
    for name, label in NAMES.items():
        e = errors[name]
        means = [_number(e["by_distance"][band]["mean"], 2, "-") for band in bands]
        cells = [_number(e["mean"], 2), _number(e["median"], 2), _percent(e["relative"]), *means]
        lines.append(f"  {label:<30}" + "".join(f"{cell:>16}" for cell in cells))
    return lines


def _percent(share: float) -> str:
    return "undefined" if math.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float, digits: int, missing: str = "undefined") -> str:
    return missing if math.isnan(value) else f"{value:.{digits}f}"
