"""How far object descriptors are arranged by depth: pairs against DDML's bounds, rank correlation, projection.

N objects with descriptors of C channels; P pairs i < j of them with depth distance d_z = |z_i - z_j| and feature
distance d_f = ||f_i - f_j||. numpy only. What is measured and how to read it: docs/depth_space.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_DEPTH_DISTANCE = 1e-12
"""pairs of equal depth do not count, as in the loss (lib/losses/quasi_isometric.py)"""
MAX_PAIRS = 200_000
_CHUNK = 1 << 14
"""pairs whose descriptors are compared at a time, so that memory does not grow with their number"""


@dataclass(frozen=True, eq=False)
class DescribedObjects:
    """Objects of some frames as the network describes them."""

    n_frames: int
    """frames looked at, those without an object among them"""
    descriptors: np.ndarray
    """(N, C) float32"""
    depths: np.ndarray
    """(N,) [m], the labels'"""
    frames: np.ndarray
    """(N,) int64, the number of each object's frame among the ``n_frames``"""
    head_depths: np.ndarray
    """(N,) [m], what the network's own depth head says at the same cells"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The quasi-isometric bounds on d_f, which hold for pairs of at most ``max_depth_distance``."""

    K: float
    """slope, >= 1"""
    B: float
    """slack, >= 0"""
    max_depth_distance: float
    """[m], ``rad`` in the YAML, the paper's epsilon"""

    def upper(self, depth_distance: np.ndarray) -> np.ndarray:
        """The largest d_f that is not too far apart."""
        return self.K * depth_distance + self.B

    def lower(self, depth_distance: np.ndarray) -> np.ndarray:
        """The smallest d_f that is not too close; below 0 where every distance will do."""
        return depth_distance / self.K - self.B


@dataclass(frozen=True, slots=True)
class BoundCounts:
    """How many pairs with d_z <= rad lie where."""

    inside: int
    above: int
    """farther apart than the upper bound allows"""
    below: int
    """closer than the lower bound allows"""

    @property
    def pairs(self) -> int:
        return self.inside + self.above + self.below

    @property
    def official_loss_is_zero(self) -> bool:
        """The published loss is exactly 0, gradient included, unless there are violators of both bounds."""
        return not (self.above and self.below)

    def shares(self) -> dict[str, float]:
        """'inside', 'above', 'below' as shares of all pairs; NaN where there is no pair."""
        counts = {"inside": self.inside, "above": self.above, "below": self.below}
        return {name: count / self.pairs if self.pairs else math.nan for name, count in counts.items()}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distances of pairs."""

    depth_distance: np.ndarray
    """(P,) [m]"""
    feature_distance: np.ndarray
    """(P,)"""
    total: int
    """how many pairs there were to draw from"""

    def near(self, bounds: Bounds) -> np.ndarray:
        """(P,) bool: the pairs that the loss looks at."""
        return (self.depth_distance > MIN_DEPTH_DISTANCE) & (self.depth_distance <= bounds.max_depth_distance)

    def count(self, bounds: Bounds) -> BoundCounts:
        """Where the pairs with d_z <= rad lie. No pair is beyond both bounds, since K >= 1 and B >= 0."""
        near = self.near(bounds)
        d_z, d_f = self.depth_distance[near], self.feature_distance[near]
        above, below = int((d_f > bounds.upper(d_z)).sum()), int((d_f < bounds.lower(d_z)).sum())
        return BoundCounts(len(d_z) - above - below, above, below)


def sample_pairs(
    descriptors: np.ndarray, depths: np.ndarray, groups: np.ndarray, seed: int = 0, limit: int = MAX_PAIRS
) -> Pairs:
    """Pairs of objects of one group: all of them, or ``limit`` drawn without replacement.

    (N, C), (N,) [m], (N,) int: objects with the same number are one group (a frame, a batch).
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.unique(groups, return_counts=True)[1].astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    ends = np.cumsum(sizes * (sizes - 1) // 2)
    total = int(ends[-1]) if len(ends) else 0
    chosen = None
    if total > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(total, limit, replace=False, shuffle=False))
    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, size, end in zip(starts.tolist(), sizes.tolist(), ends.tolist(), strict=True):
        i, j = np.triu_indices(size, 1)
        if chosen is not None:
            lowest, highest = np.searchsorted(chosen, (end - len(i), end))
            i, j = i[chosen[lowest:highest] - (end - len(i))], j[chosen[lowest:highest] - (end - len(j))]
        first.append(order[start + i])
        second.append(order[start + j])
    return _distances(descriptors, depths, np.concatenate(first), np.concatenate(second), total)


def all_pairs(descriptors: np.ndarray, depths: np.ndarray) -> Pairs:
    """Every pair of the objects (N, C), (N,) [m], as the loss compares those of a batch."""
    i, j = np.triu_indices(len(depths), 1)
    return _distances(descriptors, depths, i, j, len(i))


def batch_numbers(frames: np.ndarray, n_frames: int, batch_size: int, seed: int = 0) -> np.ndarray:
    """(N,) int64: each object's batch, if the ``n_frames`` frames come ``batch_size`` at a time in random order."""
    place = np.random.default_rng(seed).permutation(n_frames)
    return place[frames] // batch_size


def measure_pairs(pairs: Pairs, bounds: Bounds) -> dict[str, Any]:
    """Counts, shares of the pairs with d_z <= rad, and rank correlations of d_f with d_z (NaN where undefined)."""
    counts, near = pairs.count(bounds), pairs.near(bounds)
    return {
        "total": pairs.total,
        "measured": len(pairs.depth_distance),
        "within_rad": counts.pairs,
        **counts.shares(),
        "spearman": spearman(pairs.feature_distance, pairs.depth_distance),
        "spearman_within_rad": spearman(pairs.feature_distance[near], pairs.depth_distance[near]),
    }


def measure_batches(batches: Sequence[BoundCounts]) -> dict[str, Any]:
    """Of training batches: how often the official loss is not 0, and why it is where it is.

    Shares of batches ``both_bounds_violated`` (the loss is not 0), ``only_above``, ``only_below``, ``none_violated``
    and ``no_pairs`` (add up to 1), and the shares of all the batches' pairs together.
    """
    kinds = [
        "no_pairs" if not b.pairs
        else "both_bounds_violated" if not b.official_loss_is_zero
        else "only_above" if b.above
        else "only_below" if b.below
        else "none_violated"
        for b in batches
    ]  # fmt: skip
    names = ("both_bounds_violated", "only_above", "only_below", "none_violated", "no_pairs")
    together = BoundCounts(*(sum(getattr(b, name) for b in batches) for name in ("inside", "above", "below")))
    return {
        "batches": len(batches),
        **{name: kinds.count(name) / len(batches) if batches else math.nan for name in names},
        "pairs_within_rad": together.pairs,
        "pairs_per_batch": together.pairs / len(batches) if batches else math.nan,
        **together.shares(),
    }


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of (P,) and (P,); NaN where it is undefined: fewer than two values, or all equal."""
    if len(x) < 2:
        return math.nan
    a, b = (average_ranks(values) - (len(x) + 1) / 2 for values in (x, y))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else math.nan


def average_ranks(values: np.ndarray) -> np.ndarray:
    """(P,) -> ranks from 1 on, float64; equal values share the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def principal_components(descriptors: np.ndarray, depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) -> the first two principal components (N, 2), and their shares of the variance (2,).

    Each points to where depth grows. Zeros where there are fewer components than two.
    """
    centred = descriptors.astype(np.float64) - descriptors.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    coordinates, shares = np.zeros((len(descriptors), 2)), np.zeros(2)
    total = values.clip(min=0).sum()
    for k in range(min(2, len(values))):
        along = centred @ vectors[:, -1 - k]
        coordinates[:, k] = -along if along @ (depths - depths.mean()) < 0 else along
        shares[k] = max(values[-1 - k], 0.0) / total if total > 0 else 0.0
    return coordinates, shares


def _distances(descriptors: np.ndarray, depths: np.ndarray, i: np.ndarray, j: np.ndarray, total: int) -> Pairs:
    depths = depths.astype(np.float64)
    feature_distance = np.empty(len(i))
    for start in range(0, len(i), _CHUNK):
        part = slice(start, start + _CHUNK)
        difference = descriptors[i[part]].astype(np.float64) - descriptors[j[part]]
        feature_distance[part] = np.sqrt((difference**2).sum(axis=1))
    return Pairs(np.abs(depths[i] - depths[j]), feature_distance, total)
