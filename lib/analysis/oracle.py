"""What each predicted quantity costs: AP after ground truth has replaced it, one quantity at a time.

MonoDLE's diagnosis (Ma et al., CVPR 2021, section 3). Detections are matched to ground truth as ``depth_error`` does
it: within a frame and class, by descending score, in the image alone (2D IoU of at least 0.5), to ground truth of any
difficulty and to neighbouring types (Van for Car), which may be found unpunished. Matched detections get the quantity
of their ground truth; unmatched ones stay as they are, and so do all scores. What 'all' lacks to 100 is therefore due
to objects that were not found and to detections of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..evaluation.annotations import Annotations
from ..evaluation.kitti import NO_OVERLAPS, OwnOverlaps, evaluate_annotations, type_names_for
from ..evaluation.result import DIFFICULTIES, KittiResult
from ..structures import Calibration, Object3d
from .depth_error import found_in_image

PREDICTED, ROUNDED = "predicted", "rounded"
"""no quantity replaced; and that with the two decimals of result files, which ``tools/train_val.py`` evaluates"""
QUANTITIES = {
    "box_2d": "2D box",
    "center": "projected centre",
    "depth": "depth",
    "location": "location",
    "size": "size",
    "heading": "heading",
    "all": "all",
}
"""what can be replaced, and its name in tables"""
TITLES = {PREDICTED: "as predicted", **QUANTITIES, ROUNDED: "two decimals"}
_SHOWN = tuple((overlap, metric) for overlap in ("official", "loose") for metric in ("3d", "bev"))


def replace_quantity(detection: Object3d, label: Object3d, calibration: Calibration, quantity: str) -> Object3d:
    """``detection`` with one of ``QUANTITIES`` taken from ``label``; what follows from it is computed as decoding does.

    'box_2d': the 2D box. 'center': the pixel of the 3D centre, at the predicted depth. 'depth': the depth, at the
    predicted pixel. 'location': both. 'size': (h, w, l) about the predicted centre, so the bottom face moves.
    'heading': alpha and rotation_y. 'all': the label, with the detection's type and score.
    The predicted heading is alpha, so where the pixel moves sideways, rotation_y turns with the ray.
    Raises ValueError for another quantity, and where one of the two is not in front of the camera.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity must be one of {', '.join(QUANTITIES)}, got {quantity!r}")
    for obj, name in ((detection, "detection"), (label, "label")):
        if not obj.location_cam[2] > 0:
            raise ValueError(f"{name}: z must be > 0 m for a centre in the image, got {obj.location_cam[2]:g}")
    if quantity == "all":
        return replace(label, type=detection.type, score=detection.score)  # a Van may stand for a Car
    if quantity == "box_2d":
        return replace(detection, bbox_img=label.bbox_img)
    if quantity == "heading":
        return replace(detection, alpha=label.alpha, rotation_y=label.rotation_y)
    if quantity == "size":
        return _placed(replace(detection, dimensions=label.dimensions), _center(detection))
    center, true_center = _center(detection), _center(label)
    if quantity == "location":
        moved = true_center
    else:
        pixel_of, depth = (label, center[2]) if quantity == "center" else (detection, true_center[2])
        u, v = calibration.project(np.array([_center(pixel_of)]))[0].tolist()
        moved = calibration.back_project(u, v, depth)
    return _placed(_turned_with_ray(detection, center, moved, calibration), moved)


def _center(obj: Object3d) -> tuple[float, float, float]:
    """Of the box, (x, y, z) [m]; ``location_cam`` is that of its bottom face."""
    x, y, z = obj.location_cam
    return x, y - obj.dimensions[0] / 2, z


def _placed(obj: Object3d, center: tuple[float, float, float]) -> Object3d:
    x, y, z = center
    return replace(obj, location_cam=(x, y + obj.dimensions[0] / 2, z))


def _turned_with_ray(
    obj: Object3d, center: tuple[float, float, float], moved: tuple[float, float, float], calibration: Calibration
) -> Object3d:
    """rotation_y of the same alpha where the centre moves from ``center`` to ``moved`` [m]."""
    before, after = calibration.project(np.array([center, moved]))[:, 0].tolist()
    if math.isclose(before, after, rel_tol=1e-12):  # the same column but for rounding
        return obj
    alpha = calibration.rotation_y_to_alpha(obj.rotation_y, before)
    return replace(obj, rotation_y=calibration.alpha_to_rotation_y(alpha, after))


@dataclass(frozen=True, eq=False)
class Oracle:
    """AP as predicted and with each quantity replaced."""

    results: Mapping[str, KittiResult]
    """by each of ``TITLES``"""
    matched: Mapping[str, int]
    """by class: detections whose quantities were replaced"""
    detections: Mapping[str, int]
    """by class: all detections"""

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that were evaluated."""
        return self.results[PREDICTED].classes

    def gain(self, quantity: str, cls: str, metric: str, difficulty: str, overlap: str = "official") -> float:
        """AP40 with the quantity replaced minus AP40 as predicted [points]; NaN where there is no figure."""
        name = (cls, metric, difficulty, overlap)
        return self.results[quantity].ap(*name) - self.results[PREDICTED].ap(*name)

    def to_json(self) -> dict[str, Any]:
        """Plain dict: class -> overlap -> metric -> quantity -> [easy, moderate, hard] AP40 [%]; None for NaN."""
        tree: dict[str, Any] = {}
        for cls in self.classes:
            tree[cls] = {"detections": self.detections[cls], "matched": self.matched[cls]}
            for overlap, metric in _SHOWN:
                figures = {name: [_or_none(v) for v in self._row(name, cls, metric, overlap)] for name in self.results}
                tree[cls].setdefault(overlap, {})[metric] = figures
        return tree

    def table(self) -> str:
        """AP40 and, in brackets, the gain over the prediction; 3D and bird's eye view, official and loose overlaps."""
        lines = []
        for cls in self.classes:
            lines += [f"{cls}: {self.matched[cls]} of {self.detections[cls]} detections have a ground truth"]
            for overlap in ("official", "loose"):
                lines += ["", *self._block(cls, overlap)]
            lines.append("")
        return "\n".join(lines).rstrip()

    def _block(self, cls: str, overlap: str) -> list[str]:
        minimums = self.results[PREDICTED].overlaps[overlap][cls]
        titles = [f"{name} > {minimums[metric]:.2f}" for metric, name in (("3d", "3D"), ("bev", "BEV"))]
        width = 16
        lines = [f"{'AP40 [%]':<18}" + "".join(f"{title:^{3 * width}}" for title in titles)]
        lines.append(" " * 18 + "".join(f"{name:>{width}}" for name in DIFFICULTIES) * 2)
        for quantity in self.results:
            cells = []
            for metric in ("3d", "bev"):
                values = self._row(quantity, cls, metric, overlap)
                gains = [self.gain(quantity, cls, metric, name, overlap) for name in DIFFICULTIES]
                cells += [_cell(*pair, quantity != PREDICTED) for pair in zip(values, gains, strict=True)]
            lines.append(f"{TITLES[quantity]:<18}" + "".join(f"{cell:>{width}}" for cell in cells))
        return [line.rstrip() for line in lines]

    def _row(self, quantity: str, cls: str, metric: str, overlap: str) -> list[float]:
        return [self.results[quantity].ap(cls, metric, name, overlap) for name in DIFFICULTIES]


def replace_and_evaluate(
    labels: Sequence[Sequence[Object3d]],
    detections: Sequence[Sequence[Object3d]],
    calibrations: Sequence[Calibration],
    classes: Sequence[str],
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> Oracle:
    """Evaluate the detections of each frame as they are and with each of ``QUANTITIES`` from ground truth.

    Numbers are not rounded to the two decimals of result files, except for ``ROUNDED``. Raises ValueError for unequal
    numbers of frames, and what ``evaluate_annotations`` raises it for.
    """
    if not len(labels) == len(detections) == len(calibrations):
        counts = f"{len(labels)} frames of labels, {len(detections)} of detections, {len(calibrations)} calibrations"
        raise ValueError(f"expected the same number of each, got {counts}")
    names = type_names_for(classes)
    true, predicted = Annotations.from_objects(labels, False, names), Annotations.from_objects(detections, True, names)
    pairs = _match(labels, detections, true, predicted, classes)
    results = {PREDICTED: evaluate_annotations(true, predicted, classes, (), own_overlaps)}
    for quantity in QUANTITIES:
        replaced = [list(objects) for objects in detections]
        for frame, row, label in pairs:
            replaced[frame][row] = replace_quantity(replaced[frame][row], label, calibrations[frame], quantity)
        results[quantity] = evaluate_annotations(
            true, Annotations.from_objects(replaced, True, names), classes, (), own_overlaps
        )
    rounded = [[Object3d.from_line(obj.to_result_line()) for obj in objects] for objects in detections]
    results[ROUNDED] = evaluate_annotations(
        true, Annotations.from_objects(rounded, True, names), classes, (), own_overlaps
    )
    types = [obj.type for objects in detections for obj in objects]
    matched = [detections[frame][row].type for frame, row, _ in pairs]
    return Oracle(results, {c: matched.count(c) for c in classes}, {c: types.count(c) for c in classes})


def _match(
    labels: Sequence[Sequence[Object3d]],
    detections: Sequence[Sequence[Object3d]],
    true: Annotations,
    predicted: Annotations,
    classes: Sequence[str],
) -> list[tuple[int, int, Object3d]]:
    """(frame, place of the detection in it, its ground truth) of each match in front of the camera."""
    all_labels = [label for objects in labels for label in objects]
    places = [(frame, k) for frame, objects in enumerate(detections) for k in range(len(objects))]
    pairs = []
    for cls in classes:
        for gt, det in found_in_image(true, predicted, cls).items():
            frame, k = places[det]
            if min(all_labels[gt].location_cam[2], detections[frame][k].location_cam[2]) > 0:
                pairs.append((frame, k, all_labels[gt]))
    return pairs


def _cell(value: float, gain: float, with_gain: bool) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f} ({gain:+.2f})" if with_gain else f"{value:.2f}" + " " * 8


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
