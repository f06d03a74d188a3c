"""Matching of detections to ground truth, as KITTI's devkit does it, for every score threshold at once.

Within a frame the counts of true and false positives depend on the threshold alone, and they change only at scores of
that frame's detections. So each frame is matched once for each change, and every evaluation, of all frames or of some
of them drawn at random, sums the same changes. N ground truths and M detections of all frames, P pairs of them, neither
OTHER_CLASS, that overlap by more than the minimum.

As in the devkit, ground truths choose in the order of their lines; of detections with equal scores, equal overlaps, or
that are ignored, the one on the earlier line is taken. Otherwise the order of detections has no influence.
"""

from typing import NamedTuple

import numpy as np

from .compilation import compiled
from .ignore_rules import DONT_CARE_AREA, IGNORED, OTHER_CLASS, VALID

_NO_DETECTION = -10000000.0  # the devkit's search for the best score starts here: a lower one is never matched


class MatchInputs(NamedTuple):
    """One class, metric, difficulty and overlap over all frames; a NamedTuple is what numba accepts."""

    gt_offsets: np.ndarray  # (F + 1,) int64, first ground truth of each frame
    gt_states: np.ndarray  # (N,) int8, see ``ignore_rules``
    gt_alpha: np.ndarray  # (N,) float64 [rad]
    det_offsets: np.ndarray  # (F + 1,) int64
    det_states: np.ndarray  # (M,) int8
    det_alpha: np.ndarray  # (M,) float64 [rad]
    ranks: np.ndarray  # (M,) int64, see ``ScoreRanks``
    order: np.ndarray  # (M,) int64, see ``ScoreRanks``
    lowest: int  # detections of a higher rank are not matched in the first pass
    starts: np.ndarray  # (N + 1,) int64, first pair of each ground truth
    rows: np.ndarray  # (P,) int64, the detection of each pair, in file order
    overlaps: np.ndarray  # (P,) float64; over the detection's area where the ground truth is DONT_CARE_AREA


class ScoreRanks(NamedTuple):
    """The scores of M detections as ranks: 0 for the highest of the S different scores."""

    scores: np.ndarray  # (S,) float64, descending
    ranks: np.ndarray  # (M,) int64
    order: np.ndarray  # (M,) int64, rows by frame, then by rank, then by line
    lowest: int  # the highest rank that the devkit's first pass can match


class FrameCounts(NamedTuple):
    """One class, metric, difficulty and overlap: what each frame adds to the counts, and from which score on.

    The counts at a threshold are the sums of ``changes`` of that rank and of all before it.
    """

    n_valid: np.ndarray  # (F,) int64, valid ground truths: each is found or missed
    match_ranks: np.ndarray  # (K,) int64, ascending: matches between valid ones of the first pass, by their scores
    match_frames: np.ndarray  # (K,) int64
    ranks: np.ndarray  # (E,) int64, ascending
    frames: np.ndarray  # (E,) int64
    changes: np.ndarray  # (E, 4) true, false positives, valid ground truths matched by anything, summed similarity


def rank_scores(scores: np.ndarray, offsets: np.ndarray) -> ScoreRanks:
    """``scores`` (M,) of the detections of frames that start at ``offsets`` (F + 1,)."""
    ascending, inverse = np.unique(scores, return_inverse=True)
    ranks = len(ascending) - 1 - inverse
    frames = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    lowest = int(np.count_nonzero(ascending > _NO_DETECTION)) - 1
    return ScoreRanks(ascending[::-1], ranks, np.lexsort((ranks, frames)), lowest)


def count_by_frame(inputs: MatchInputs) -> FrameCounts:
    """Match all frames."""
    valid = np.concatenate([[0], np.cumsum(inputs.gt_states == VALID)])
    n_valid = np.diff(valid[inputs.gt_offsets])
    matches = np.empty((2, int(valid[-1])), dtype=np.int64)
    matches = matches[:, : _match_best_scores(inputs, matches)]
    matches = matches[:, _order_of(matches[0], len(inputs.ranks))]
    most = int(np.count_nonzero(inputs.det_states != OTHER_CLASS))
    steps, changes = np.empty((2, most), dtype=np.int64), np.empty((most, 4))
    number = _collect_changes(inputs, steps, changes)
    order = _order_of(steps[0, :number], len(inputs.ranks))
    return FrameCounts(n_valid, matches[0], matches[1], steps[0, order], steps[1, order], changes[order])


@compiled
def _order_of(ranks, most):  # type: ignore[no-untyped-def]
    """Rows by ascending rank, stable; ranks are below ``most``, so counting sorts faster than numpy's argsort."""
    starts = np.zeros(most + 1, dtype=np.int64)
    for rank in ranks:
        starts[rank + 1] += 1
    starts = np.cumsum(starts)
    order = np.empty(len(ranks), dtype=np.int64)
    for k in range(len(ranks)):
        order[starts[ranks[k]]] = k
        starts[ranks[k]] += 1
    return order


@compiled
def _match_best_scores(inputs, matches):  # type: ignore[no-untyped-def]
    """First pass: each ground truth takes the detection with the best score.

    Writes rank and frame of matches between valid ones into ``matches`` (2, n valid); returns their number.
    """
    taken = np.zeros(len(inputs.ranks), dtype=np.bool_)
    count = 0
    for frame in range(len(inputs.gt_offsets) - 1):
        for i in range(inputs.gt_offsets[frame], inputs.gt_offsets[frame + 1]):
            if inputs.gt_states[i] != VALID and inputs.gt_states[i] != IGNORED:
                continue
            best, best_rank = -1, inputs.lowest + 1
            for p in range(inputs.starts[i], inputs.starts[i + 1]):
                j = inputs.rows[p]
                if not taken[j] and inputs.ranks[j] < best_rank:
                    best, best_rank = j, inputs.ranks[j]
            if best >= 0:
                taken[best] = True
                if inputs.gt_states[i] == VALID and inputs.det_states[best] != IGNORED:
                    matches[0, count], matches[1, count] = best_rank, frame
                    count += 1
    return count


@compiled
def _collect_changes(inputs, steps, changes):  # type: ignore[no-untyped-def]
    """Second pass: write rank and frame of each change into ``steps`` (2, ..), its counts into ``changes`` (.., 4).

    Returns their number: at most one for each detection of the class, or that is ignored. A detection that no ground
    truth prefers to its match of the threshold before cannot change the matches: the frame is not matched again.
    """
    owner, before_it, latest = _list_pairs(inputs)
    match = np.full(len(inputs.gt_states), -1)  # the pair that each ground truth is matched in
    taken, in_area = np.zeros(len(inputs.ranks), dtype=np.bool_), np.zeros(len(inputs.ranks), dtype=np.bool_)
    count, before, now = 0, np.zeros(4), np.zeros(4)
    for frame in range(len(inputs.gt_offsets) - 1):
        before[:], now[:] = 0, 0
        k, end = inputs.det_offsets[frame], inputs.det_offsets[frame + 1]
        while k < end:
            rank, wrong, preferred = inputs.ranks[inputs.order[k]], 0, False
            while k < end and inputs.ranks[inputs.order[k]] == rank:
                j, p = inputs.order[k], latest[inputs.order[k]]
                while p >= 0:
                    if inputs.gt_states[owner[p]] == DONT_CARE_AREA:
                        in_area[j] = True  # a detection in a DontCare area is no false positive
                    elif _is_preferred(inputs, p, match[owner[p]]):
                        preferred = True
                    p = before_it[p]
                wrong += inputs.det_states[j] == VALID and not in_area[j]
                k += 1
            if preferred:
                _match_frame(inputs, frame, rank, in_area, taken, match, now)
            if wrong or preferred:
                steps[0, count], steps[1, count] = rank, frame
                for c in range(4):
                    changes[count, c] = now[c] - before[c]
                    before[c] = now[c]
                changes[count, 1] += wrong
                count += 1
    return count


def match_all(inputs: MatchInputs) -> tuple[np.ndarray, np.ndarray]:
    """Second pass with all detections: (N,) int64 the one of each ground truth, or -1; (M,) bool in a DontCare area."""
    matches: tuple[np.ndarray, np.ndarray] = _match_all(inputs)
    return matches


@compiled
def _match_all(inputs):  # type: ignore[no-untyped-def]
    match, in_area = np.full(len(inputs.gt_states), -1), np.zeros(len(inputs.ranks), dtype=np.bool_)
    for i in range(len(inputs.gt_states)):
        if inputs.gt_states[i] == DONT_CARE_AREA:
            in_area[inputs.rows[inputs.starts[i] : inputs.starts[i + 1]]] = True
    taken, counts = np.zeros(len(inputs.ranks), dtype=np.bool_), np.zeros(4)
    for frame in range(len(inputs.gt_offsets) - 1):
        _match_frame(inputs, frame, len(inputs.ranks), in_area, taken, match, counts)
    for i in range(len(match)):
        match[i] = inputs.rows[match[i]] if match[i] >= 0 else -1
    return match, in_area


@compiled
def _list_pairs(inputs):  # type: ignore[no-untyped-def]
    """The pairs by detection: ground truth of each pair, the pair before it of the same detection (-1: none); and the
    last pair of each detection."""
    owner, before_it = np.empty(len(inputs.rows), dtype=np.int64), np.empty(len(inputs.rows), dtype=np.int64)
    latest = np.full(len(inputs.ranks), -1)
    for i in range(len(inputs.gt_states)):
        for p in range(inputs.starts[i], inputs.starts[i + 1]):
            owner[p], before_it[p], latest[inputs.rows[p]] = i, latest[inputs.rows[p]], p
    return owner, before_it, latest


@compiled
def _match_frame(inputs, frame, rank, in_area, taken, match, counts):  # type: ignore[no-untyped-def]
    """Match a frame's detections up to ``rank``: writes ``match`` and ``counts`` (4,), ``taken`` (M,) is scratch.

    The second count is minus the number of detections that would be false positives if they were not matched.
    """
    counts[:] = 0
    taken[inputs.det_offsets[frame] : inputs.det_offsets[frame + 1]] = False
    for i in range(inputs.gt_offsets[frame], inputs.gt_offsets[frame + 1]):
        if inputs.gt_states[i] != VALID and inputs.gt_states[i] != IGNORED:
            continue
        best = -1
        for p in range(inputs.starts[i], inputs.starts[i + 1]):
            j = inputs.rows[p]
            if inputs.ranks[j] <= rank and not taken[j] and _is_preferred(inputs, p, best):
                best = p
        match[i] = best
        if best < 0:
            continue
        j = inputs.rows[best]
        taken[j] = True
        if inputs.det_states[j] == VALID and not in_area[j]:
            counts[1] -= 1
        if inputs.gt_states[i] == VALID:
            counts[2] += 1
            if inputs.det_states[j] != IGNORED:
                counts[0] += 1
                counts[3] += (1.0 + np.cos(inputs.gt_alpha[i] - inputs.det_alpha[j])) / 2.0


@compiled
def _is_preferred(inputs, p, other):  # type: ignore[no-untyped-def]
    """Whether a ground truth takes the detection of pair p rather than that of pair ``other`` (-1: there is none).

    It takes the largest overlap, and an ignored detection (the first of them) only if there is no other.
    """
    if other < 0:
        return True
    ignored = inputs.det_states[inputs.rows[p]] == IGNORED
    other_ignored = inputs.det_states[inputs.rows[other]] == IGNORED
    if ignored or other_ignored:
        return other_ignored and (not ignored or p < other)
    overlap, other_overlap = inputs.overlaps[p], inputs.overlaps[other]
    return overlap > other_overlap or (overlap == other_overlap and p < other)
