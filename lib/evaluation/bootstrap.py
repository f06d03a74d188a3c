"""How sure an average precision is: the bootstrap over clusters of frames.

A replicate draws as many clusters as there are, with replacement, and evaluates their frames by the whole protocol.
Frames of one drive show the same road, weather and cars, so they are no independent samples: drives are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .clusters import Clusters
from .ignore_rules import has_ap

LEVEL = 0.95  # confidence level of every interval
MAX_REPLICATES = 20_000  # the draws of 3769 frames take 300 MB then
_BLOCK = 500  # replicates at a time, where a step needs more memory than its result

FigureKey = tuple[str, str, str, str, str]  # overlap, class, metric, difficulty, recall ('R40', 'R11' or 'all')


class Draws(NamedTuple):
    of_frame: np.ndarray  # (F,) int64, cluster of each frame
    weights: np.ndarray  # (R, C) int32: how often each replicate has each cluster

    def have_ap(self, fields: np.ndarray) -> np.ndarray:
        """(R,) whether a class has an AP in a metric; ``fields`` (4, F): see ``count_fields``."""
        if (fields[0] == fields[1]).all() and (fields[2] == fields[3]).all():
            return np.ones(len(self.weights), dtype=np.bool_)  # the sums below take time
        by_cluster = np.stack([np.bincount(self.of_frame, row, self.weights.shape[1]) for row in fields])
        blocks = np.split(self.weights, range(_BLOCK, len(self.weights), _BLOCK))
        return np.concatenate([has_ap(by_cluster @ block.T) for block in blocks])


@dataclass(frozen=True, eq=False)
class Resampling:
    """The draws of a bootstrap. Raises ValueError for one cluster, or a number or seed that is not accepted."""

    clusters: Clusters
    n_replicates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.n_replicates <= MAX_REPLICATES:
            raise ValueError(f"bootstrap: expected 2 to {MAX_REPLICATES} replicates, got {self.n_replicates}")
        if len(self.clusters.names) < 2:
            raise ValueError(f"bootstrap: expected at least 2 clusters, got {self.clusters.describe()}")
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")

    def draw(self) -> Draws:
        """Equal for equal numbers and seeds."""
        number, rng = len(self.clusters.names), np.random.default_rng(self.seed)
        weights = np.empty((self.n_replicates, number), dtype=np.int32)
        for start in range(0, len(weights), _BLOCK):
            block = weights[start : start + _BLOCK]
            block[:] = rng.multinomial(number, np.full(number, 1 / number), len(block))
        return Draws(self.clusters.of_frame, weights)

    def has_draws_of(self, other: Resampling) -> bool:
        """Whether the draws, and the frames as far as they are known, are the same."""
        mine, theirs = self.clusters, other.clusters
        same = (self.n_replicates, self.seed, mine.names) == (other.n_replicates, other.seed, theirs.names)
        same = same and np.array_equal(mine.of_frame, theirs.of_frame)
        return same and (mine.ids == theirs.ids or not (mine.ids and theirs.ids))

    def to_json(self) -> dict[str, Any]:
        """Plain dict: all that the draws depend on."""
        clusters = {"clusters": self.clusters.unit, "n_clusters": len(self.clusters.names)}
        settings = {"replicates": self.n_replicates, **clusters, "source": self.clusters.source, "seed": self.seed}
        return {**settings, "level": LEVEL}

    def describe(self) -> str:
        """'1000 replicates of 45 drives, seed 0'."""
        return f"{self.n_replicates} replicates of {self.clusters.describe()}, seed {self.seed}"


class Interval(NamedTuple):
    low: float  # NaN where no replicate has the figure
    high: float
    replicates: int  # those that have the figure


class Difference(NamedTuple):
    """An average precision minus another one, of the same draws [points of percent]."""

    difference: float  # of all frames once; NaN where one of the two has no such figure
    low: float
    high: float
    replicates: int
    share_better: float  # of the replicates in which the first is better; equal ones are not


@dataclass(frozen=True, eq=False)
class Replicates:
    """The figures of R replicates [%]; NaN in a replicate that has no such figure, because no ground truth counts."""

    resampling: Resampling
    values: Mapping[FigureKey, np.ndarray]  # each (R,)

    def interval(self, key: FigureKey) -> Interval:
        """Percentiles at ``LEVEL``."""
        return percentile_interval(self.values.get(key, np.empty(0)))

    def difference(self, other: Replicates, key: FigureKey, value: float) -> Difference:
        """``value``: that of all frames once. Raises ValueError where the two have different draws."""
        if not self.resampling.has_draws_of(other.resampling):
            raise ValueError("differences need the same frames, clusters, seed and number of replicates for both")
        if key not in self.values or key not in other.values:
            return Difference(np.nan, np.nan, np.nan, 0, np.nan)
        changes = self.values[key] - other.values[key]
        interval = percentile_interval(changes)
        share = float(np.mean(changes[~np.isnan(changes)] > 0)) if interval.replicates else np.nan
        return Difference(value, *interval, share)


def percentile_interval(values: np.ndarray) -> Interval:
    """Percentiles of (R,) replicates at ``LEVEL``, NaN left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(np.nan, np.nan, 0)
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(low), float(high), len(values))
