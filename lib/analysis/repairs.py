"""Why a representation's ceiling is not 100: what was spoilt is repaired, reason after reason, and evaluated again.

What comes in is, per frame, the labels, which of them were lost on the way and why, and the others as they were
decoded. Repairs follow the order of ``REASONS`` and add up; they are done for every label, whether it counts or not. A
lost label is put back as it stands in the label file, a decoded one gets what the reason had spoilt. What AP gains at a
step are that reason's points; what is missing after the last one is the cost of AP40's own sampling.

Perfect detections all have the same score, and KITTI's curve cannot be sampled where scores are equal. They get whole
numbers instead (two decimals do not blur them), a seeded permutation of 1 .. N over the lines of all label files; the
spread over several seeds tells how little the order matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..evaluation.annotations import BBOX, BOX_3D, Annotations
from ..evaluation.ignore_rules import MIN_HEIGHT, VALID, label_states
from ..evaluation.kitti import NO_OVERLAPS, OwnOverlaps, evaluate_annotations, type_names_for
from ..evaluation.result import DIFFICULTIES, KittiResult
from ..evaluation.rotated_iou import rotated_overlaps
from ..structures import Object3d
from .ceiling import FARTHEST, LOST, ORDERS, REASONS, SAMPLING, SPOILT, Ceiling, Missed, Triple

_METRIC = "3d"


class DecodedFrame(NamedTuple):
    """One frame; labels are named by their line, counted from 0."""

    labels: Sequence[Object3d]
    lost: Mapping[int, str]
    """why a label of the evaluated classes is lost, a key of ``LOST``"""
    decoded: Mapping[int, Object3d]
    """the others as the decoder gives them; and a lost one too where a detection stands for it with wrong values"""
    exact: Mapping[int, Object3d]
    """the same from a decoder that maps rows exactly"""


def explain_ceiling(
    frames: Sequence[DecodedFrame], classes: Sequence[str], own_overlaps: OwnOverlaps = NO_OVERLAPS
) -> list[Ceiling]:
    """Evaluate what was decoded, then repair reason after reason; one ceiling for each class.

    ``own_overlaps``: see ``evaluate_annotations``, whose ValueErrors are raised here too.
    """
    scene = _Scene(frames, classes, own_overlaps)
    steps = [scene.evaluate(frozenset())]
    done: frozenset[str] = frozenset()
    present = {reason for frame in frames for reason in frame.lost.values()}
    for reason in REASONS:
        done |= {reason}
        steps.append(steps[-1] if reason in LOST and reason not in present else scene.evaluate(done))
    orders = steps[:1] + [scene.evaluate(frozenset(), seed) for seed in range(1, ORDERS)]
    return [_of_class(scene, cls, steps, orders) for cls in classes]


class _Scene:
    """All frames, and the labels of the evaluated classes as (frame, line)."""

    def __init__(self, frames: Sequence[DecodedFrame], classes: Sequence[str], own_overlaps: OwnOverlaps) -> None:
        self.frames, self.classes, self.own_overlaps = frames, classes, own_overlaps
        self.type_names = type_names_for(classes)
        self.labels = Annotations.from_objects([frame.labels for frame in frames], False, self.type_names)

    def evaluate(self, repaired: frozenset[str], seed: int = 0) -> KittiResult:
        """AP with some reasons repaired, and scores in the order of a seed."""
        scores = np.random.default_rng(seed).permutation(len(self.labels.types)) + 1.0
        detections = []
        for first, frame in zip(self.labels.offsets[:-1].tolist(), self.frames, strict=True):
            found = ((line, self.detection(frame, line, repaired)) for line in range(len(frame.labels)))
            detections.append([replace(obj, score=float(scores[first + line])) for line, obj in found if obj])
        predicted = Annotations.from_objects(detections, True, self.type_names)
        return evaluate_annotations(
            self.labels, predicted, self.classes, [(0.0, FARTHEST)], self.own_overlaps
        )

    def detection(self, frame: DecodedFrame, line: int, repaired: frozenset[str]) -> Object3d | None:
        """What stands for a label once ``repaired`` is."""
        label, lost = frame.labels[line], frame.lost.get(line)
        if label.type not in self.classes:
            return None
        if lost in repaired or "other" in repaired:
            return label
        if line not in frame.decoded:
            return None
        found, exact = frame.decoded[line], frame.exact[line]
        if "rows_2d" in repaired:
            found = replace(found, bbox_img=exact.bbox_img)
        if "rows_3d" in repaired:
            found = replace(found, location_cam=exact.location_cam)
        if "rotation" in repaired and lost is None:
            found = replace(found, rotation_y=label.rotation_y)
        return found if "rounding" in repaired else Object3d.from_line(found.to_result_line())


def _of_class(scene: _Scene, cls: str, steps: Sequence[KittiResult], orders: Sequence[KittiResult]) -> Ceiling:
    figures = np.array([_figures(step, cls) for step in steps])
    points = {reason: _triple(gain) for reason, gain in zip(REASONS, np.diff(figures, axis=0), strict=True)}
    wrong = np.array([_false_positives(step, cls) for step in steps])
    counts = np.array([label_states(scene.labels, cls, name, None) == VALID for name in DIFFICULTIES])
    ground_truth = counts.sum(axis=1)
    found = np.array([_true_positives(steps[0], cls, name) for name in DIFFICULTIES])
    of_orders = np.array([_figures(order, cls) for order in orders])
    min_overlap = steps[0].overlaps["official"][cls][_METRIC]
    missed, overlaps = _missed(scene, counts, min_overlap)
    return Ceiling(
        cls=cls,
        min_overlap=min_overlap,
        ground_truth=_whole(ground_truth),
        ap=_triple(figures[0]),
        ap_near=_triple(_figures(steps[0].by_distance[f"0-{FARTHEST:g}"], cls)),
        spread=(_triple(of_orders.min(axis=0)), _triple(of_orders.max(axis=0))),
        overlaps=_triple(np.quantile(overlaps, [0, 0.01, 0.5]) if len(overlaps) else np.full(3, np.nan)),
        points=points | {SAMPLING: _triple(100 - figures[-1])},
        false_positives={name: _whole(gone) for name, gone in zip(REASONS, -np.diff(wrong, axis=0), strict=True)},
        misses=_whole(ground_truth - found),
        missed=missed,
    )


def _missed(scene: _Scene, counts: np.ndarray, min_overlap: float) -> tuple[tuple[Missed, ...], np.ndarray]:
    """The missed of a class with their reasons, and the 3D overlaps of all that were decoded and count at hard.

    ``counts``: (3, N) by difficulty, whether a label counts. A reason is the first whose repair makes it a match.
    """
    rows = np.flatnonzero(counts.any(axis=0))
    places = [(frame, line) for frame, objects in enumerate(scene.frames) for line in range(len(objects.labels))]
    places = [places[row] for row in rows.tolist()]
    repairs = [frozenset(list(SPOILT)[:k]) for k in range(len(SPOILT) + 1)]
    overlaps, heights = np.zeros((len(repairs), len(rows))), np.zeros((len(repairs), len(rows)))
    for step, repaired in enumerate(repairs):
        found = [scene.detection(scene.frames[frame], line, repaired) for frame, line in places]
        overlaps[step], heights[step] = _compare(scene.labels.values[rows], found)
    fits = [(overlaps > min_overlap) & (heights >= MIN_HEIGHT[name]) for name in DIFFICULTIES]
    missed = []
    for k, (row, (frame, line)) in enumerate(zip(rows.tolist(), places, strict=True)):
        reasons: list[str | None] = [None] * 3
        for place in range(3):
            if counts[place, row] and not fits[place][0, k]:
                step = int(np.argmax(fits[place][:, k])) or len(SPOILT)
                reasons[place] = scene.frames[frame].lost.get(line) or list(SPOILT)[step - 1]
        if any(reasons):
            missed.append(Missed(frame, line, (reasons[0], reasons[1], reasons[2]), float(overlaps[0, k])))
    was_decoded = [line in scene.frames[f].decoded and line not in scene.frames[f].lost for f, line in places]
    return tuple(missed), overlaps[0][np.array(was_decoded, dtype=np.bool_)]


def _compare(values: np.ndarray, found: Sequence[Object3d | None]) -> tuple[np.ndarray, np.ndarray]:
    """3D overlap of each label with what stands for it, and that one's height in the image [px]; 0 for none."""
    overlaps, heights = np.zeros(len(found)), np.zeros(len(found))
    there = [k for k, obj in enumerate(found) if obj is not None]
    if there:
        standing = [replace(obj, score=0.0) for obj in found if obj is not None]
        detected = Annotations.from_objects([standing], True).values
        overlaps[there] = rotated_overlaps(values[there, BOX_3D], detected[:, BOX_3D])[1]
        boxes = detected[:, BBOX]
        heights[there] = boxes[:, 3] - boxes[:, 1]
    return overlaps, heights


def _figures(result: KittiResult, cls: str) -> np.ndarray:
    """(3,) AP40 by difficulty; 0 where nothing was detected."""
    return np.nan_to_num([result.ap(cls, _METRIC, name) for name in DIFFICULTIES])


def _true_positives(result: KittiResult, cls: str, difficulty: str) -> int:
    curve = result.curves.get(("official", cls, _METRIC, difficulty))
    return int(curve.true_positives[-1]) if curve is not None and len(curve.thresholds) else 0


def _false_positives(result: KittiResult, cls: str) -> list[int]:
    curves = [result.curves.get(("official", cls, _METRIC, name)) for name in DIFFICULTIES]
    return [int(c.false_positives[-1]) if c is not None and len(c.thresholds) else 0 for c in curves]


def _triple(values: np.ndarray) -> Triple:
    easy, moderate, hard = map(float, values)
    return easy, moderate, hard


def _whole(values: np.ndarray) -> tuple[int, int, int]:
    easy, moderate, hard = map(int, values)
    return easy, moderate, hard
