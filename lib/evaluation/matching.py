"""Matching of detections to ground truth and sampling of the precision-recall curve, as KITTI's devkit does it.

N ground truths and M detections of all frames, P pairs of them, neither OTHER_CLASS, that overlap by more than
the minimum, T <= 41 recall thresholds.
"""

from typing import NamedTuple

import numpy as np

from .compilation import compiled
from .ignore_rules import DONT_CARE_AREA, IGNORED, VALID
from .protocol import N_SAMPLES
from .result import Curve

_NO_DETECTION = -10000000.0  # the devkit's search for the best score starts here: a lower one is never matched


class MatchInputs(NamedTuple):
    """One class, metric, difficulty and overlap over all frames; a NamedTuple is what numba accepts."""

    gt_offsets: np.ndarray  # (F + 1,) int64, first ground truth of each frame
    gt_states: np.ndarray  # (N,) int8, see ``ignore_rules``
    gt_alpha: np.ndarray  # (N,) float64 [rad]
    det_offsets: np.ndarray  # (F + 1,) int64
    det_states: np.ndarray  # (M,) int8
    det_alpha: np.ndarray  # (M,) float64 [rad]
    scores: np.ndarray  # (M,) float64
    starts: np.ndarray  # (N + 1,) int64, first pair of each ground truth
    rows: np.ndarray  # (P,) int64, the detection of each pair, in file order
    overlaps: np.ndarray  # (P,) float64; over the detection's area where the ground truth is DONT_CARE_AREA


def precision_recall(inputs: MatchInputs, with_orientation: bool) -> Curve:
    """The scores at which recall is sampled, and precision (and orientation similarity) at each of them."""
    n_gt = int(np.count_nonzero(inputs.gt_states == VALID))
    matched = np.empty(n_gt)
    matched = np.sort(matched[: _match_best_scores(inputs, matched)])[::-1].copy()
    thresholds = np.empty(N_SAMPLES)
    thresholds = thresholds[: _sample_thresholds(matched, n_gt, thresholds)].copy()
    tp, fp, hit, similarity = _count_matches(inputs, thresholds).T
    return Curve(
        n_ground_truth=n_gt,
        n_detections=int(np.count_nonzero(inputs.det_states == VALID)),
        thresholds=thresholds,
        true_positives=tp.astype(np.int64),
        false_positives=fp.astype(np.int64),
        recall=_divide(tp, tp + (n_gt - hit)),
        precision=_envelope(_divide(tp, tp + fp)),
        orientation=_envelope(_divide(similarity, tp + fp)) if with_orientation else None,
    )


def _count_matches(inputs: MatchInputs, thresholds: np.ndarray) -> np.ndarray:
    """Second pass: (T, 4) true and false positives, valid ground truths matched by anything, summed similarity.

    Within a frame only detections that overlap something can change the matches, so a frame is matched again only at
    thresholds where such a detection is added. All others are false positives from their score on.
    """
    # The first of the descending thresholds that is not above the score; T if all are.
    first = np.searchsorted(-thresholds, -inputs.scores)
    overlapping = np.zeros(len(first), dtype=np.bool_)
    overlapping[inputs.rows] = True
    changes = np.zeros((len(thresholds) + 1, 4))
    changes[:, 1] = np.bincount(first[(inputs.det_states == VALID) & ~overlapping], minlength=len(changes))
    _add_changes(inputs, first, overlapping, changes)
    return np.cumsum(changes[:-1], axis=0)


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Ratio; NaN where nothing was counted, as in the devkit."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _envelope(values: np.ndarray) -> np.ndarray:
    """(T,) -> (41,): each entry the maximum of itself and all later ones, 0 beyond T.

    A NaN stays where it is and does not affect earlier entries, as with the devkit's max_element.
    """
    entries = np.zeros(N_SAMPLES)
    entries[: len(values)] = np.where(np.isnan(values), -np.inf, values)
    entries = np.maximum.accumulate(entries[::-1])[::-1]
    entries[: len(values)][np.isnan(values)] = np.nan
    return entries


@compiled
def _match_best_scores(inputs, matched):  # type: ignore[no-untyped-def]
    """First pass: each ground truth takes the detection with the best score.

    Writes the scores of matches between valid ones into ``matched`` (n valid ground truths,); returns their number.
    """
    taken = np.zeros(len(inputs.scores), dtype=np.bool_)
    count = 0
    for i in range(len(inputs.gt_states)):
        if inputs.gt_states[i] != VALID and inputs.gt_states[i] != IGNORED:
            continue
        best, best_score = -1, _NO_DETECTION
        for p in range(inputs.starts[i], inputs.starts[i + 1]):
            j = inputs.rows[p]
            if not taken[j] and inputs.scores[j] > best_score:
                best, best_score = j, inputs.scores[j]
        if best >= 0:
            taken[best] = True
            if inputs.gt_states[i] == VALID and inputs.det_states[best] != IGNORED:
                matched[count] = best_score
                count += 1
    return count


@compiled
def _sample_thresholds(scores, n_gt, thresholds):  # type: ignore[no-untyped-def]
    """Write those of the descending ``scores`` whose recall is nearest to 0, 1/40, 2/40, ..; return their number."""
    count, wanted = 0, 0.0
    for k in range(len(scores)):
        last = k == len(scores) - 1
        recall = (k + 1) / n_gt
        next_recall = recall if last else (k + 2) / n_gt
        if next_recall - wanted < wanted - recall and not last:
            continue
        thresholds[count] = scores[k]
        count += 1
        wanted += 1.0 / (N_SAMPLES - 1.0)  # summed as in the devkit: 1/40 is not exact
    return count


@compiled
def _add_changes(inputs, first, overlapping, changes):  # type: ignore[no-untyped-def]
    """Add to ``changes`` (T + 1, 4) by how much the counts of each frame differ from those at the threshold before."""
    taken = np.zeros(len(first), dtype=np.bool_)
    added = np.zeros(len(changes), dtype=np.bool_)
    before, now = np.zeros(4), np.zeros(4)
    for frame in range(len(inputs.gt_offsets) - 1):
        for j in range(inputs.det_offsets[frame], inputs.det_offsets[frame + 1]):
            if overlapping[j]:
                added[first[j]] = True
        before[:] = 0
        for t in range(len(changes) - 1):
            if added[t]:
                added[t] = False
                _match_frame(inputs, frame, t, first, overlapping, taken, now)
                for k in range(4):
                    changes[t, k] += now[k] - before[k]
                    before[k] = now[k]


@compiled
def _match_frame(inputs, frame, t, first, overlapping, taken, counts):  # type: ignore[no-untyped-def]
    """Match a frame's detections of threshold t; writes ``counts`` (4,), ``taken`` (M,) is scratch."""
    gt_range = range(inputs.gt_offsets[frame], inputs.gt_offsets[frame + 1])
    det_range = range(inputs.det_offsets[frame], inputs.det_offsets[frame + 1])
    counts[:] = 0
    taken[inputs.det_offsets[frame] : inputs.det_offsets[frame + 1]] = False
    for i in gt_range:
        if inputs.gt_states[i] != VALID and inputs.gt_states[i] != IGNORED:
            continue
        best = _find_largest_overlap(inputs, i, t, first, taken)
        if best < 0:
            continue
        taken[best] = True
        if inputs.gt_states[i] == VALID:
            counts[2] += 1
            if inputs.det_states[best] != IGNORED:
                counts[0] += 1
                counts[3] += (1.0 + np.cos(inputs.gt_alpha[i] - inputs.det_alpha[best])) / 2.0
    for i in gt_range:
        if inputs.gt_states[i] == DONT_CARE_AREA:
            for p in range(inputs.starts[i], inputs.starts[i + 1]):
                taken[inputs.rows[p]] = True  # a detection in a DontCare area is no false positive
    for j in det_range:
        if inputs.det_states[j] == VALID and overlapping[j] and first[j] <= t and not taken[j]:
            counts[1] += 1


@compiled
def _find_largest_overlap(inputs, i, t, first, taken):  # type: ignore[no-untyped-def]
    """The free detection with the largest overlap with ground truth i, or -1.

    An ignored detection is taken (the first of them) only if there is no other.
    """
    best, best_overlap = -1, 0.0
    for p in range(inputs.starts[i], inputs.starts[i + 1]):
        j = inputs.rows[p]
        if taken[j] or first[j] > t:
            continue
        if inputs.det_states[j] == IGNORED:
            if best < 0:
                best = j
        elif inputs.overlaps[p] > best_overlap:  # 0 while best is an ignored detection
            best, best_overlap = j, inputs.overlaps[p]
    return best
