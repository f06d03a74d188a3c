"""Precision over recall of frames that each count a number of times, from the counts of each frame.

All frames once: the evaluation itself. Any other numbers: a replicate of the bootstrap, whose recall thresholds are
chosen from the scores of its own frames. T <= 41 recall thresholds.
"""

import numpy as np

from .compilation import compiled
from .matching import FrameCounts
from .protocol import AVERAGES, N_SAMPLES, RECALLS
from .result import Curve

_R40, _R11 = np.array(RECALLS["R40"]), np.array(RECALLS["R11"])


def group_frames(counts: FrameCounts, groups: np.ndarray) -> FrameCounts:
    """The same counts with groups in the place of frames; ``groups`` (F,) int64: that of each frame, 0 .. C - 1."""
    return counts._replace(
        n_valid=np.bincount(groups, counts.n_valid).astype(np.int64),
        match_frames=groups[counts.match_frames],
        frames=groups[counts.frames],
    )


def sample_curve(counts: FrameCounts, scores: np.ndarray, n_detections: int, with_orientation: bool) -> Curve:
    """The curve of all frames; ``scores``: see ``ScoreRanks``."""
    once = np.ones(len(counts.n_valid), dtype=np.int32)
    ranks, at, areas = np.empty(N_SAMPLES, dtype=np.int64), np.zeros((N_SAMPLES, 4)), np.zeros(2)
    number = _sample(counts, once, ranks, at, areas, np.empty((2, len(counts.ranks) + 1, 2)))
    tp, fp, hit, _ = at[:number].T
    n_valid = int(counts.n_valid.sum())
    return Curve(
        n_ground_truth=n_valid,
        n_detections=n_detections,
        thresholds=scores[ranks[:number]],
        true_positives=tp.astype(np.int64),
        false_positives=fp.astype(np.int64),
        recall=np.divide(tp, tp + (n_valid - hit), out=np.full(number, np.nan), where=tp + (n_valid - hit) > 0),
        precision=_interpolate(at, number, 0),
        orientation=_interpolate(at, number, 3) if with_orientation else None,
        area=float(areas[0]),
        orientation_area=float(areas[1]) if with_orientation else None,
    )


def resample(counts: FrameCounts, weights: np.ndarray) -> np.ndarray:
    """Average precisions in percent of R replicates, (2, len(AVERAGES), R): of precision and of orientation.

    ``weights`` (R, C) int32: how often each group counts, see :func:`group_frames`. NaN where no ground truth counts.
    """
    figures = np.empty((2, len(AVERAGES), len(weights)))
    _resample(counts, weights, _R40, _R11, figures)
    return figures


@compiled
def _resample(counts, weights, r40, r11, figures):  # type: ignore[no-untyped-def]
    ranks, at = np.empty(N_SAMPLES, dtype=np.int64), np.zeros((N_SAMPLES, 4))
    areas, hulls = np.zeros(2), np.empty((2, len(counts.ranks) + 1, 2))
    for r in range(len(weights)):
        if (weights[r] * counts.n_valid).sum() == 0:
            figures[:, :, r] = np.nan
            continue
        number = _sample(counts, weights[r], ranks, at, areas, hulls)
        for kind in range(2):
            values = _interpolate(at, number, 3 * kind)
            figures[kind, 0, r] = 100.0 * np.mean(values[r40])
            figures[kind, 1, r] = 100.0 * np.mean(values[r11])
            figures[kind, 2, r] = 100.0 * areas[kind]


@compiled
def _sample(counts, weights, ranks, at, areas, hulls):  # type: ignore[no-untyped-def]
    """Write the recall thresholds into ``ranks`` (41,), the counts at each into ``at`` (41, 4), and the areas under
    interpolated precision and orientation similarity over recall into ``areas`` (2,); return the number of thresholds.

    ``hulls`` (2, E + 1, 2) is scratch.
    """
    n_valid = (weights * counts.n_valid).sum()
    number, t = _choose_thresholds(counts, weights, n_valid, ranks), 0
    n_hull, last_hull, e = 0, 0, 0
    tp, fp, hit, similarity = 0.0, 0.0, 0.0, 0.0
    while e < len(counts.ranks):
        rank, earlier = counts.ranks[e], (tp, fp, hit, similarity)
        while t < number and ranks[t] < rank:
            at[t, 0], at[t, 1], at[t, 2], at[t, 3] = tp, fp, hit, similarity
            t += 1
        while e < len(counts.ranks) and counts.ranks[e] == rank:
            weight = weights[counts.frames[e]]
            if weight:
                tp += weight * counts.changes[e, 0]
                fp += weight * counts.changes[e, 1]
                hit += weight * counts.changes[e, 2]
                similarity += weight * counts.changes[e, 3]
            e += 1
        # where only false positives are added, precision at this recall is lower than before
        only_wrong = tp == earlier[0] and fp >= earlier[1] and hit == earlier[2] and similarity == earlier[3]
        if tp > 0 and not only_wrong:
            recall = tp / (tp + (n_valid - hit))
            n_hull = _add_point(hulls[0], n_hull, recall, tp / (tp + fp))
            last_hull = _add_point(hulls[1], last_hull, recall, similarity / (tp + fp))
    while t < number:
        at[t, 0], at[t, 1], at[t, 2], at[t, 3] = tp, fp, hit, similarity
        t += 1
    areas[0], areas[1] = _area(hulls[0], n_hull), _area(hulls[1], last_hull)
    return number


@compiled
def _choose_thresholds(counts, weights, n_valid, ranks):  # type: ignore[no-untyped-def]
    """Write those of the matches' ranks whose recall is nearest to 0, 1/40, 2/40, ..; return their number."""
    total = 0
    for frame in counts.match_frames:
        total += weights[frame]
    count, k, wanted = 0, 0, 0.0
    for m in range(len(counts.match_ranks)):
        for _ in range(weights[counts.match_frames[m]]):
            k += 1
            recall = k / n_valid
            next_recall = (k + 1) / n_valid if k < total else recall
            if k < total and next_recall - wanted < wanted - recall:
                continue
            ranks[count] = counts.match_ranks[m]
            count += 1
            wanted += 1.0 / (N_SAMPLES - 1.0)  # summed as in the devkit: 1/40 is not exact
    return count


@compiled
def _interpolate(at, number, column):  # type: ignore[no-untyped-def]
    """(41,) ratio of a column of ``at`` to all positives, or the largest at a later threshold; 0 from ``number`` on.

    NaN where nothing was counted; it does not affect earlier entries, as with the devkit's max_element.
    """
    values, largest = np.zeros(N_SAMPLES), -np.inf
    for t in range(number - 1, -1, -1):
        positives = at[t, 0] + at[t, 1]
        if positives > 0:
            largest = max(largest, at[t, column] / positives)
            values[t] = largest
        else:
            values[t] = np.nan
    return values


@compiled
def _add_point(hull, n, recall, value):  # type: ignore[no-untyped-def]
    """Add a point to the first n rows of ``hull`` (.., 2), which have ascending recall and descending value, and take
    out those that it makes superfluous: lower recall and no larger value. Returns the number of rows.

    Recall can decrease from one score to the next, since the matches are chosen anew.
    """
    place = n
    while place > 0 and hull[place - 1, 0] > recall:
        place -= 1
    if place < n and hull[place, 1] >= value:
        return n
    kept = place
    while kept > 0 and hull[kept - 1, 1] <= value:
        kept -= 1
    moved = n - place
    if kept < place:
        for k in range(moved):
            hull[kept + 1 + k] = hull[place + k]
    else:
        for k in range(moved - 1, -1, -1):
            hull[place + 1 + k] = hull[place + k]
    hull[kept, 0], hull[kept, 1] = recall, value
    return kept + 1 + moved


@compiled
def _area(hull, n):  # type: ignore[no-untyped-def]
    area, before = 0.0, 0.0
    for k in range(n):
        area += (hull[k, 0] - before) * hull[k, 1]
        before = hull[k, 0]
    return area
