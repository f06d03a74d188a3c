"""Matching of detections to ground truth and sampling of the precision-recall curve, as KITTI's devkit does it.

N ground truths and M detections of all frames, P pairs that may overlap, T <= 41 recall thresholds.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .ignore_rules import IGNORED, STUFF, UNUSED, VALID
from .result import N_SAMPLES, Curve

# The devkit starts its search for the best score here: a score that is not larger is never matched.
_NO_DETECTION = -10000000.0


class Case(NamedTuple):
    """One class, metric, difficulty and overlap over all frames; a tuple because compiled code takes it as it is."""

    gt_offsets: np.ndarray
    """(F + 1,) int64, first ground truth of each frame"""
    det_offsets: np.ndarray
    """(F + 1,) int64"""
    starts: np.ndarray
    """(N + 1,) int64, first pair of each ground truth"""
    rows: np.ndarray
    """(P,) int64, the detection of each pair, in file order"""
    overlaps: np.ndarray
    """(P,) float64; over the detection's area where the ground truth is STUFF"""
    min_overlap: float
    """a match needs more"""
    gt_states: np.ndarray
    """(N,) int8, see ``validity``"""
    det_states: np.ndarray
    """(M,) int8"""
    scores: np.ndarray
    """(M,) float64"""
    gt_alpha: np.ndarray
    """(N,) float64 [rad]"""
    det_alpha: np.ndarray
    """(M,) float64 [rad]"""


def precision_recall(case: Case, with_orientation: bool) -> Curve:
    """The scores at which recall is sampled, and precision (and orientation similarity) at each of them."""
    n_gt = int(np.count_nonzero(case.gt_states == VALID))
    matched = np.empty(n_gt)
    matched = np.sort(matched[: _match_best_scores(case, matched)])[::-1].copy()
    thresholds = np.empty(N_SAMPLES)
    thresholds = thresholds[: _sample_thresholds(matched, n_gt, thresholds)].copy()
    counts = np.zeros((len(thresholds), 4))
    _count(case, thresholds, counts)
    found, wrong, missed, similarity = counts.T
    return Curve(
        n_ground_truth=n_gt,
        n_detections=int(np.count_nonzero(case.det_states == VALID)),
        thresholds=thresholds,
        true_positives=found.astype(np.int64),
        false_positives=wrong.astype(np.int64),
        recall=_divide(found, found + missed),
        precision=_envelope(_divide(found, found + wrong)),
        orientation=_envelope(_divide(similarity, found + wrong)) if with_orientation else None,
    )


def count_by_frame(case: Case, min_score: float) -> np.ndarray:
    """(F, 3) int64: true positives, false positives and misses of each frame, from ``min_score`` on."""
    first = (case.scores < min_score).astype(np.int8)  # joins at threshold 0, the only one, or never
    counts = np.zeros((len(case.gt_offsets) - 1, 3), dtype=np.int64)
    _count_frames(case, first, counts)
    return counts


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Ratio; NaN where nothing was counted, as in the devkit."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _envelope(values: np.ndarray) -> np.ndarray:
    """(T,) -> (41,): each entry the maximum of itself and all later ones, 0 beyond T.

    The devkit's max_element keeps a NaN that stands first and steps over later ones, and so does this.
    """
    entries = np.zeros(N_SAMPLES)
    entries[: len(values)] = np.where(np.isnan(values), -np.inf, values)
    entries = np.maximum.accumulate(entries[::-1])[::-1]
    entries[: len(values)][np.isnan(values)] = np.nan
    return entries


@numba.njit(cache=True)
def _match_best_scores(case, matched):  # type: ignore[no-untyped-def]
    """First pass: each ground truth takes the best score; -> number of scores of valid matches in ``matched``."""
    taken = np.zeros(len(case.scores), dtype=np.bool_)
    count = 0
    for i in range(len(case.gt_states)):
        if case.gt_states[i] != VALID and case.gt_states[i] != IGNORED:
            continue
        best, best_score = -1, _NO_DETECTION
        for p in range(case.starts[i], case.starts[i + 1]):
            j = case.rows[p]
            if case.det_states[j] == UNUSED or taken[j]:
                continue
            if case.overlaps[p] > case.min_overlap and case.scores[j] > best_score:
                best, best_score = j, case.scores[j]
        if best >= 0:
            taken[best] = True
            if case.gt_states[i] == VALID and case.det_states[best] != IGNORED:
                matched[count] = best_score
                count += 1
    return count


@numba.njit(cache=True)
def _sample_thresholds(scores, n_gt, thresholds):  # type: ignore[no-untyped-def]
    """Of the descending ``scores`` those whose recall is nearest to 0, 1/40, 2/40, ..; -> their number."""
    count, wanted = 0, 0.0
    for k in range(len(scores)):
        last = k == len(scores) - 1
        recall = (k + 1) / n_gt
        next_recall = recall if last else (k + 2) / n_gt
        if next_recall - wanted < wanted - recall and not last:
            continue
        thresholds[count] = scores[k]
        count += 1
        wanted += 1.0 / (N_SAMPLES - 1.0)  # summed up as the devkit does: 1/40 is not exact
    return count


@numba.njit(cache=True)
def _count(case, thresholds, counts):  # type: ignore[no-untyped-def]
    """Second pass: true positives, false positives, misses, summed similarity at each threshold -> counts (T, 4).

    Within a frame only detections that overlap something can change the outcome, so it is matched anew only at
    thresholds where one of them joins. All others are false positives from their score on.
    """
    n_thresholds = len(thresholds)
    first = np.full(len(case.scores), -1, dtype=np.int8)  # threshold at which a detection that overlaps joins
    taken = np.zeros(len(case.scores), dtype=np.bool_)
    joins = np.zeros(n_thresholds + 1, dtype=np.bool_)
    changes = np.zeros((n_thresholds + 1, 4))
    for frame in range(len(case.gt_offsets) - 1):
        n_valid, start = _join(case, frame, thresholds, first, joins)
        changes[0, 2] += n_valid
        for j in range(case.det_offsets[frame], case.det_offsets[frame + 1]):
            if case.det_states[j] == VALID and first[j] < 0:
                changes[_first_threshold(thresholds, case.scores[j]), 1] += 1
        found, wrong, missed, similarity = 0, 0, n_valid, 0.0
        for t in range(start, n_thresholds):
            if joins[t]:
                joins[t] = False
                now_found, now_wrong, now_missed, now_similarity = _match_frame(case, frame, t, first, taken)
                changes[t, 0] += now_found - found
                changes[t, 1] += now_wrong - wrong
                changes[t, 2] += now_missed - missed
                changes[t, 3] += now_similarity - similarity
                found, wrong, missed, similarity = now_found, now_wrong, now_missed, now_similarity
    for k in range(4):
        running = 0.0
        for t in range(n_thresholds):
            running += changes[t, k]
            counts[t, k] = running


@numba.njit(cache=True)
def _join(case, frame, thresholds, first, joins):  # type: ignore[no-untyped-def]
    """Set ``first`` of the frame's detections that overlap something, and ``joins``.

    Returns the number of valid ground truths, and the first threshold at which a detection joins.
    """
    n_valid, start = 0, len(thresholds)
    for i in range(case.gt_offsets[frame], case.gt_offsets[frame + 1]):
        if case.gt_states[i] == UNUSED:
            continue
        if case.gt_states[i] == VALID:
            n_valid += 1
        for p in range(case.starts[i], case.starts[i + 1]):
            j = case.rows[p]
            if case.det_states[j] != UNUSED and case.overlaps[p] > case.min_overlap and first[j] < 0:
                first[j] = _first_threshold(thresholds, case.scores[j])
                joins[first[j]] = True
                start = min(start, first[j])
    return n_valid, start


@numba.njit(cache=True)
def _first_threshold(thresholds, score):  # type: ignore[no-untyped-def]
    """Index of the first of the descending thresholds that is not above ``score``; T if all are."""
    low, high = 0, len(thresholds)
    while low < high:
        middle = (low + high) // 2
        if score < thresholds[middle]:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True)
def _match_frame(case, frame, t, first, taken):  # type: ignore[no-untyped-def]
    """Match a frame's detections that have joined by threshold t; -> true, false positives, misses, similarity."""
    found, missed, similarity = 0, 0, 0.0
    gt_range = range(case.gt_offsets[frame], case.gt_offsets[frame + 1])
    det_range = range(case.det_offsets[frame], case.det_offsets[frame + 1])
    for j in det_range:
        taken[j] = False
    for i in gt_range:
        if case.gt_states[i] != VALID and case.gt_states[i] != IGNORED:
            continue
        best = _largest_overlap(case, i, t, first, taken)
        if best >= 0:
            taken[best] = True
        if case.gt_states[i] == VALID:
            if best < 0:
                missed += 1
            elif case.det_states[best] != IGNORED:
                found += 1
                similarity += (1.0 + np.cos(case.gt_alpha[i] - case.det_alpha[best])) / 2.0
    _take_stuff(case, frame, taken)
    wrong = 0
    for j in det_range:
        if case.det_states[j] == VALID and 0 <= first[j] <= t and not taken[j]:
            wrong += 1
    return found, wrong, missed, similarity


@numba.njit(cache=True)
def _count_frames(case, first, counts):  # type: ignore[no-untyped-def]
    """Match every frame's detections whose ``first`` is 0."""
    taken = np.zeros(len(case.scores), dtype=np.bool_)
    for frame in range(len(counts)):
        found, wrong, missed, _ = _match_frame(case, frame, 0, first, taken)
        counts[frame, 0], counts[frame, 1], counts[frame, 2] = found, wrong, missed


@numba.njit(cache=True)
def _largest_overlap(case, i, t, first, taken):  # type: ignore[no-untyped-def]
    """The free detection that overlaps ground truth i most, ignored ones (first of them) only for want of others."""
    best, best_overlap = -1, 0.0
    for p in range(case.starts[i], case.starts[i + 1]):
        j = case.rows[p]
        if case.det_states[j] == UNUSED or taken[j] or first[j] > t or not case.overlaps[p] > case.min_overlap:
            continue
        if case.det_states[j] == IGNORED:
            if best < 0:
                best = j
        elif case.overlaps[p] > best_overlap:  # 0 so far if best is an ignored one
            best, best_overlap = j, case.overlaps[p]
    return best


@numba.njit(cache=True)
def _take_stuff(case, frame, taken):  # type: ignore[no-untyped-def]
    """Mark the detections that lie in a DontCare area."""
    for i in range(case.gt_offsets[frame], case.gt_offsets[frame + 1]):
        if case.gt_states[i] == STUFF:
            for p in range(case.starts[i], case.starts[i + 1]):
                if case.overlaps[p] > case.min_overlap:
                    taken[case.rows[p]] = True
