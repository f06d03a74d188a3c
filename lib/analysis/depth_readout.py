"""How well depth can be read from object descriptors of frames that were not used: neighbours, and a linear map.

M objects to learn from (the fit split), N held-out ones, C channels. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .depth_space import DescribedObjects

NEIGHBOURS = (1, 5)
PENALTIES = tuple(10.0**k for k in range(-6, 2))
"""of the ridge regression on standardised descriptors, for the mean squared error"""
DEFAULT_PENALTY = 1e-2
"""where the fit split has too few objects to choose"""
NAMES = {
    "mean": "mean depth of the fit split",
    "median": "median depth of the fit split",
    "nearest_1": "nearest neighbour",
    "nearest_5": "mean of 5 neighbours",
    "linear": "linear, depth",
    "linear_log": "linear, log depth",
    "depth_head": "the network's depth head",
}
_CHUNK = 256
"""held-out objects compared at a time with all of the fit split"""


def measure_readouts(
    fit: DescribedObjects, held_out: DescribedObjects, bands: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """``errors`` of each read-out of ``NAMES`` on the held-out objects, and the ``penalties`` that were chosen.

    Args:
        bands: (near, far) [m] of true depth; see :func:`depth_errors`.
    """
    ones = np.ones(len(held_out.depths))
    predictions = {"mean": ones * fit.depths.mean(), "median": ones * np.median(fit.depths)}
    nearest = nearest_descriptors(fit.descriptors, held_out.descriptors, max(NEIGHBOURS))
    for k in NEIGHBOURS:
        predictions[f"nearest_{k}"] = fit.depths[nearest[:, :k]].mean(axis=1)
    penalties = {}
    for name, log in (("linear", False), ("linear_log", True)):
        penalties[name] = choose_penalty(fit, log)
        predictions[name] = linear_depths(fit.descriptors, fit.depths, held_out.descriptors, penalties[name], log)
    predictions["depth_head"] = held_out.head_depths
    errors = {name: depth_errors(predictions[name], held_out.depths, bands) for name in NAMES}
    return {"errors": errors, "penalties": penalties}


def depth_errors(
    predicted: np.ndarray, depths: np.ndarray, bands: Sequence[tuple[float, float]] = ()
) -> dict[str, Any]:
    """(N,) [m], (N,) [m] -> count; mean and median absolute error [m]; mean error relative to the true depth.

    The same under ``by_distance`` for true depths in [near, far) of each band, by names such as '0-30'. NaN where there
    is no object.
    """
    errors = _errors(predicted, depths)
    if bands:
        inside = {f"{near:g}-{far:g}": (depths >= near) & (depths < far) for near, far in bands}
        errors["by_distance"] = {name: _errors(predicted[mask], depths[mask]) for name, mask in inside.items()}
    return errors


def nearest_descriptors(fit: np.ndarray, held_out: np.ndarray, k: int) -> np.ndarray:
    """(M, C), (N, C) -> (N, k) int64, each held-out object's nearest descriptors, nearest first; (N, M) where M < k."""
    centre = fit.mean(axis=0, dtype=np.float64)  # keeps |a|^2 - 2ab + |b|^2 from losing digits
    fit, held_out, k = fit - centre, held_out - centre, min(k, len(fit))
    squares, nearest = (fit**2).sum(axis=1), np.empty((len(held_out), k), np.int64)
    for start in range(0, len(held_out), _CHUNK):
        part = slice(start, start + _CHUNK)
        distances = squares - 2 * held_out[part] @ fit.T  # |a|^2 is the same for all neighbours of a
        some = np.argpartition(distances, k - 1, axis=1)[:, :k]
        order = np.take_along_axis(distances, some, axis=1).argsort(axis=1)
        nearest[part] = np.take_along_axis(some, order, axis=1)
    return nearest


def linear_depths(
    fit: np.ndarray, depths: np.ndarray, held_out: np.ndarray, penalty: float, log: bool = False
) -> np.ndarray:
    """Ridge regression: (M, C), (M,) [m], (N, C) -> (N,) [m]; ``log``: of the logarithm of depth.

    Minimises mean((X w + c - y)^2) + penalty |w|^2 on descriptors that are standardised with the fit split's mean and
    standard deviation. A prediction is cut to the range of the fit split's depths, which neighbours cannot leave
    either.
    """
    mean, deviation = fit.mean(axis=0, dtype=np.float64), fit.std(axis=0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6 * deviation.max(initial=0.0), deviation, 1.0)  # channels that are constant
    x, y = (fit - mean) / deviation, depths.astype(np.float64)
    y = np.log(y) if log else y
    weights = np.linalg.solve(x.T @ x / len(y) + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean()) / len(y))
    predicted = ((held_out - mean) / deviation @ weights + y.mean()).clip(y.min(), y.max())
    return np.exp(predicted) if log else predicted


def choose_penalty(fit: DescribedObjects, log: bool = False) -> float:
    """Of ``PENALTIES`` the one with the least mean absolute error [m] on one half of the frames, fitted on the other.

    Every other frame with objects is in the second half: neighbouring cars of one image must not be in both.
    """
    second = np.unique(fit.frames, return_inverse=True)[1] % 2 == 1
    if min(second.sum(), (~second).sum()) < 2:
        return DEFAULT_PENALTY
    x, y = fit.descriptors, fit.depths
    errors = [np.abs(linear_depths(x[~second], y[~second], x[second], p, log) - y[second]).mean() for p in PENALTIES]
    return PENALTIES[int(np.argmin(errors))]


def _errors(predicted: np.ndarray, depths: np.ndarray) -> dict[str, Any]:
    absolute = np.abs(predicted - depths)
    return {
        "count": len(depths),
        "mean": float(absolute.mean()) if len(depths) else math.nan,
        "median": float(np.median(absolute)) if len(depths) else math.nan,
        "relative": float((absolute / depths).mean()) if len(depths) else math.nan,
    }
