"""How far object descriptors are arranged by depth: pairs against DDML's bounds, rank correlation, projection.

N objects with descriptors of C channels; P pairs i < j of them with depth distance d_z = |z_i - z_j| and feature
distance d_f = ||f_i - f_j||. The bounds are d_z / K - B <= d_f <= K d_z + B for pairs with d_z <= rad; K, B and rad
are those of the ``general`` section of a configuration. docs/depth_space.md explains the measures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from ..config import General
from ..losses.quasi_isometric import MIN_DEPTH_DISTANCE

MAX_PAIRS = 200_000


@dataclass(frozen=True, eq=False)
class DescribedObjects:
    """Objects of some frames and a network's descriptors of them."""

    n_frames: int  # number of frames, those without objects included
    descriptors: np.ndarray  # (N, C) float32
    depths: np.ndarray  # (N,) [m], of the labels
    frames: np.ndarray  # (N,) int64, number of each object's frame among the ``n_frames``
    head_depths: np.ndarray  # (N,) [m], output of the network's depth head at the same cells


class BoundCounts(NamedTuple):
    """Numbers of near pairs (0 < d_z <= rad). No pair violates both bounds, since K >= 1 and B >= 0."""

    inside: int
    above: int  # farther apart than the upper bound allows
    below: int  # closer than the lower bound allows

    @property
    def pairs(self) -> int:
        return self.inside + self.above + self.below

    @property
    def official_loss_is_zero(self) -> bool:
        """The published loss is exactly 0, gradient included, unless pairs violate each of the two bounds."""
        return not (self.above and self.below)

    def shares(self) -> dict[str, float]:
        """'inside', 'above', 'below' as shares of all pairs; NaN where there is no pair."""
        return {name: n / self.pairs if self.pairs else math.nan for name, n in self._asdict().items()}


@dataclass(frozen=True, eq=False)
class Pairs:
    depth_distance: np.ndarray  # (P,) [m]
    feature_distance: np.ndarray  # (P,)
    total: int  # number of pairs from which these were drawn

    def near(self, bounds: General) -> np.ndarray:
        """(P,) bool: the pairs that the loss uses, 0 < d_z <= rad."""
        return (self.depth_distance > MIN_DEPTH_DISTANCE) & (self.depth_distance <= bounds.rad)

    def count(self, bounds: General) -> BoundCounts:
        """Compare the near pairs with the bounds."""
        near = self.near(bounds)
        d_z, d_f = self.depth_distance[near], self.feature_distance[near]
        above = int((d_f > bounds.K * d_z + bounds.B).sum())
        below = int((d_f < d_z / bounds.K - bounds.B).sum())
        return BoundCounts(len(d_z) - above - below, above, below)


def draw_pairs(
    descriptors: np.ndarray, depths: np.ndarray, groups: np.ndarray, seed: int = 0, limit: int = MAX_PAIRS
) -> Pairs:
    """Pairs of objects of one group: all of them, or ``limit`` drawn without replacement.

    (N, C), (N,) [m], (N,) int: objects with the same number are one group (a frame, a batch).
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    pairs = [rows[np.stack(np.triu_indices(len(rows), 1))] for rows in members]
    i, j = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
    total = len(i)
    if total > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(total, limit, replace=False, shuffle=False))
        i, j = i[chosen], j[chosen]
    feature_distance = np.linalg.norm(descriptors[i].astype(np.float64) - descriptors[j], axis=1)
    return Pairs(np.abs(depths[i].astype(np.float64) - depths[j]), feature_distance, total)


def all_pairs(descriptors: np.ndarray, depths: np.ndarray) -> Pairs:
    """Every pair of the objects (N, C), (N,) [m], as the loss compares those of a batch."""
    return draw_pairs(descriptors, depths, np.zeros(len(depths)), limit=len(depths) ** 2)


def draw_batches(frames: np.ndarray, n_frames: int, batch_size: int, seed: int = 0) -> np.ndarray:
    """(N,) int64: number of each object's batch, if the frames form batches of ``batch_size`` in random order."""
    place = np.random.default_rng(seed).permutation(n_frames)
    return place[frames] // batch_size


def measure_pairs(pairs: Pairs, bounds: General) -> dict[str, Any]:
    """Counts, shares of the near pairs, and rank correlations of d_f with d_z (NaN where undefined)."""
    counts, near = pairs.count(bounds), pairs.near(bounds)
    return {
        "total": pairs.total,
        "measured": len(pairs.depth_distance),
        "within_rad": counts.pairs,
        **counts.shares(),
        "spearman": rank_correlation(pairs.feature_distance, pairs.depth_distance),
        "spearman_within_rad": rank_correlation(pairs.feature_distance[near], pairs.depth_distance[near]),
    }


def measure_batches(batches: Sequence[BoundCounts]) -> dict[str, Any]:
    """Of training batches: how often the official loss is not 0, and why it is 0 in the others.

    Shares of batches ``both_bounds_violated`` (the loss is not 0), ``only_above``, ``only_below``, ``none_violated``
    and ``no_pairs`` (their sum is 1), and the shares of the pairs of all batches together.
    """
    kinds = {
        "both_bounds_violated": [not b.official_loss_is_zero for b in batches],
        "only_above": [b.above > 0 and b.below == 0 for b in batches],
        "only_below": [b.below > 0 and b.above == 0 for b in batches],
        "none_violated": [b.inside == b.pairs > 0 for b in batches],
        "no_pairs": [b.pairs == 0 for b in batches],
    }
    together = BoundCounts(*map(sum, zip((0, 0, 0), *batches, strict=True)))
    return {
        "batches": len(batches),
        **{name: sum(which) / len(batches) if batches else math.nan for name, which in kinds.items()},
        "pairs_within_rad": together.pairs,
        "pairs_per_batch": together.pairs / len(batches) if batches else math.nan,
        **together.shares(),
    }


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, of (P,) and (P,); NaN where it is undefined: fewer than two values, or all of them equal."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(scipy.stats.spearmanr(x, y).statistic)


def principal_components(descriptors: np.ndarray, depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) -> the first two principal components (N, 2), and their shares of the variance (2,).

    The sign of each is such that depth increases along it. Zeros where there are fewer components than two.
    """
    centred = descriptors.astype(np.float64) - descriptors.mean(axis=0, dtype=np.float64)
    padded = np.pad(centred, ((0, 2), (0, 2)))  # at least two components
    rotated, deviations, _ = np.linalg.svd(padded, full_matrices=False)
    coordinates = rotated[:-2, :2] * deviations[:2]
    signs = np.where((depths - depths.mean()) @ coordinates < 0, -1, 1)
    return coordinates * signs, deviations[:2] ** 2 / max((deviations**2).sum(), 1e-300)
