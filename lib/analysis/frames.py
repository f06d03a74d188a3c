"""How well each single frame was detected: to find the best and the worst of a split.

A class's detections count from the score on at which F1 over the whole split is largest (at KITTI's 41 recall samples),
so that one rule serves a weak and a strong model. At that score each frame has true positives, false positives and
misses by KITTI's matching, at difficulty 'moderate' and the loose 3D overlap. Its quality is F1,

    2 TP / (2 TP + FP + misses),

over all classes together; a frame in which nothing was to be found and nothing was said has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.annotations import ALPHA, SCORE, Annotations
from ..evaluation.ignore_rules import detection_states, label_states
from ..evaluation.kitti import NO_OVERLAPS, OwnOverlaps, compare
from ..evaluation.matching import Case, count_by_frame, precision_recall
from ..evaluation.result import Curve, overlaps_for

DIFFICULTY, OVERLAP, METRIC = "moderate", "loose", "3d"


@dataclass(frozen=True, eq=False)
class FrameScores:
    """Counts of F frames, over all classes."""

    min_scores: Mapping[str, float]
    """by class: detections below are left out; infinite for a class that never hit"""
    true_positives: np.ndarray
    """(F,) int64"""
    false_positives: np.ndarray
    """(F,) int64"""
    misses: np.ndarray
    """(F,) int64"""

    @property
    def counted(self) -> np.ndarray:
        """(F,) int64: right, wrong and missed together."""
        return self.true_positives + self.false_positives + self.misses

    @property
    def f1(self) -> np.ndarray:
        """(F,) in 0..1; NaN where there is nothing to count."""
        whole = self.counted + self.true_positives
        return np.divide(2.0 * self.true_positives, whole, out=np.full(len(whole), np.nan), where=whole > 0)

    def extremes(self, number: int) -> tuple[list[int], list[int]]:
        """The best and the worst frames, at most ``number`` each, best and worst first; no frame is in both.

        Of equal F1, the frame in which more was counted goes first; of equals in that too, the earlier one.
        """
        f1, counted = self.f1, self.counted
        ranked = [frame for frame in range(len(f1)) if not np.isnan(f1[frame])]
        best = sorted(ranked, key=lambda k: (-f1[k], -counted[k], k))[: min(number, (len(ranked) + 1) // 2)]
        rest = sorted(set(ranked) - set(best), key=lambda k: (f1[k], -counted[k], k))
        return best, rest[:number]


def frame_scores(
    labels: Annotations,
    detections: Annotations,
    classes: Sequence[str],
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> FrameScores:
    """Count right, wrong and missed objects frame by frame, as defined above.

    ``own_overlaps``: see ``evaluate_annotations``. Raises ValueError for unequal numbers of frames.
    """
    if labels.n_frames != detections.n_frames:
        raise ValueError(f"labels have {labels.n_frames} frames, detections have {detections.n_frames}")
    with np.errstate(over="ignore", invalid="ignore"):  # as in evaluate_annotations
        scene = compare(labels, detections)
    scores, overlaps = scene.detections.values[:, SCORE], overlaps_for(classes, own_overlaps)
    min_scores, counts = {}, np.zeros((labels.n_frames, 3), dtype=np.int64)
    for cls in classes:
        case = Case(
            *(labels.offsets, detections.offsets, scene.starts, scene.rows, scene.overlaps[METRIC]),
            overlaps[OVERLAP][cls][METRIC],
            label_states(scene.labels, cls, DIFFICULTY, None),
            detection_states(scene.detections, cls, DIFFICULTY, None),
            *(scores, scene.labels.values[:, ALPHA], scene.detections.values[:, ALPHA]),
        )
        min_scores[cls] = best_score(precision_recall(case, with_orientation=False))
        counts += count_by_frame(case, min_scores[cls])
    return FrameScores(min_scores, *counts.T)


def best_score(curve: Curve) -> float:
    """The score at which F1 over all frames is largest; of equals the highest. Infinite where nothing ever hit."""
    found = curve.true_positives
    if not found.any():
        return np.inf
    # misses are the rest of the ground truth
    f1 = 2 * found / (found + curve.false_positives + curve.n_ground_truth)
    return float(curve.thresholds[np.argmax(f1)])
