"""How well depth can be read from the object descriptors of unseen frames: nearest neighbours, and linear regression.

M objects to fit on (the fit split), N held-out ones, C channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .depth_space import DescribedObjects

PENALTIES = tuple(10.0**k for k in range(-6, 2))
"""of the ridge regression on standardised descriptors, for the mean squared error"""
DEFAULT_PENALTY = 1e-2  # where the fit split has too few objects to choose
READOUTS = {  # name -> title in tables
    "mean": "mean depth of the fit split",
    "median": "median depth of the fit split",
    "nearest_1": "nearest neighbour",
    "nearest_5": "mean of 5 neighbours",
    "linear": "linear, depth",
    "linear_log": "linear, log depth",
    "depth_head": "the network's depth head",
}
Bands = Sequence[tuple[float, float]]  # (near, far) [m] of true depth
_CHUNK = 256  # held-out objects that are compared with the fit split at a time


def measure_readouts(fit: DescribedObjects, held_out: DescribedObjects, bands: Bands) -> dict[str, Any]:
    """Errors of each of ``READOUTS`` on the held-out objects (:func:`readout_errors`), and the chosen penalties."""
    nearest = nearest_descriptors(fit.descriptors, held_out.descriptors, 5)
    penalties = {name: choose_penalty(fit, log) for name, log in (("linear", False), ("linear_log", True))}
    training = fit.descriptors, fit.depths, held_out.descriptors
    predictions = {
        "mean": np.full(len(held_out.depths), float(fit.depths.mean())),
        "median": np.full(len(held_out.depths), float(np.median(fit.depths))),
        "nearest_1": fit.depths[nearest[:, 0]],
        "nearest_5": fit.depths[nearest].mean(axis=1),
        "linear": linear_depths(*training, penalties["linear"]),
        "linear_log": linear_depths(*training, penalties["linear_log"], log=True),
        "depth_head": held_out.head_depths,
    }
    errors = {name: readout_errors(predictions[name], held_out.depths, bands) for name in READOUTS}
    return {"errors": errors, "penalties": penalties}


def readout_errors(predicted: np.ndarray, depths: np.ndarray, bands: Bands = ()) -> dict[str, Any]:
    """(N,) [m], (N,) [m] -> count; mean and median absolute error [m]; mean error relative to the true depth.

    The same under ``by_distance`` for true depths in [near, far) of each band, by names such as '0-30'. NaN where there
    is no object.
    """
    absolute = np.abs(predicted - depths)
    errors: dict[str, Any] = {"count": len(depths), **dict.fromkeys(("mean", "median", "relative"), math.nan)}
    if len(depths):
        mean, median, relative = absolute.mean(), np.median(absolute), (absolute / depths).mean()
        errors |= {"mean": float(mean), "median": float(median), "relative": float(relative)}
    if bands:
        inside = {f"{near:g}-{far:g}": (depths >= near) & (depths < far) for near, far in bands}
        errors["by_distance"] = {name: readout_errors(predicted[mask], depths[mask]) for name, mask in inside.items()}
    return errors


def nearest_descriptors(fit: np.ndarray, held_out: np.ndarray, k: int) -> np.ndarray:
    """(M, C), (N, C) -> (N, k) int64, each held-out object's nearest descriptors, nearest first; (N, M) where M < k."""
    centre = fit.mean(axis=0, dtype=np.float64)  # cdist uses |a|^2 - 2ab + |b|^2, which needs small numbers
    known, k = torch.from_numpy(fit - centre), min(k, len(fit))
    parts = torch.from_numpy(held_out - centre).split(_CHUNK)
    return torch.cat([torch.cdist(part, known).topk(k, largest=False).indices for part in parts]).numpy()


def linear_depths(
    fit: np.ndarray, depths: np.ndarray, held_out: np.ndarray, penalty: float, log: bool = False
) -> np.ndarray:
    """Ridge regression: (M, C), (M,) [m], (N, C) -> (N,) [m]; ``log``: of the logarithm of depth.

    Minimises mean((X w + c - y)^2) + penalty |w|^2 on descriptors that are standardised with the fit split's mean and
    standard deviation. Predictions are clipped to the range of the fit split's depths, as those of neighbours are.
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

    The second half is every other frame with objects. Both halves are of whole frames, because objects of one image
    resemble each other.
    """
    second = np.unique(fit.frames, return_inverse=True)[1] % 2 == 1
    if min(second.sum(), (~second).sum()) < 2:
        return DEFAULT_PENALTY
    x, y = fit.descriptors, fit.depths
    errors = [np.abs(linear_depths(x[~second], y[~second], x[second], p, log) - y[second]).mean() for p in PENALTIES]
    return PENALTIES[int(np.argmin(errors))]
