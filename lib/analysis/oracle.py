"""What each predicted quantity costs: AP after ground truth has replaced it, one quantity at a time.

MonoDLE's diagnosis (Ma et al., CVPR 2021, section 3.3, table 1). Detections are matched to ground truth by
``depth_error.match_in_image``. Matched detections get the quantity of their ground truth; unmatched ones and all scores
stay as they are. What the row 'all' lacks to 100 is therefore due to missed objects and to false detections.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..evaluation import Annotations, KittiResult, evaluate_annotations, type_names_for
from ..evaluation.protocol import DIFFICULTIES, METRIC_TITLES, NO_OVERLAPS, OVERLAPS, OwnOverlaps
from ..ops.text import text_table
from ..structures import Calibration, Object3d
from .depth_error import DepthErrors, depth_errors, match_in_image

PREDICTED, ROUNDED = "predicted", "rounded"
"""no quantity replaced; the same with the two decimals of result files, which ``tools/train_val.py`` evaluates"""
QUANTITIES = {  # what can be replaced, and its name in tables
    "box_2d": "2D box",
    "center": "projected centre",
    "depth": "depth",
    "location": "location",
    "size": "size",
    "heading": "heading",
    "all": "all",
}
TITLES = {PREDICTED: "as predicted", **QUANTITIES, ROUNDED: "two decimals"}
METRICS = ("3d", "bev")


def replace_quantity(detection: Object3d, label: Object3d, calibration: Calibration, quantity: str) -> Object3d:
    """``detection`` with one of ``QUANTITIES`` taken from ``label``; dependent values are computed as in decoding.

    'box_2d': the 2D box. 'center': the pixel of the 3D centre, at the predicted depth. 'depth': the depth, at the
    predicted pixel. 'location': both. 'size': (h, w, l) about the predicted centre, so the bottom face moves.
    'heading': alpha and rotation_y. 'all': the label, with the detection's type and score.
    The network predicts alpha, so where the pixel moves sideways, rotation_y turns with the ray.
    Both must be in front of the camera.
    """
    if quantity == "all":
        return replace(label, type=detection.type, score=detection.score)  # the label can be a Van
    if quantity == "box_2d":
        return replace(detection, bbox_img=label.bbox_img)
    if quantity == "heading":
        return replace(detection, alpha=label.alpha, rotation_y=label.rotation_y)
    if quantity == "size":
        return _place(replace(detection, dimensions=label.dimensions), _center_cam(detection))
    center_cam, moved_cam = _center_cam(detection), _center_cam(label)
    if quantity != "location":
        pixel_of, depth = (moved_cam, center_cam[2]) if quantity == "center" else (center_cam, moved_cam[2])
        u_img, v_img = calibration.project(np.array([pixel_of]))[0].tolist()
        moved_cam = calibration.back_project(u_img, v_img, depth)
    old_u_img, new_u_img = calibration.project(np.array([center_cam, moved_cam]))[:, 0].tolist()
    if not math.isclose(old_u_img, new_u_img, rel_tol=1e-12):  # rounding alone must not change rotation_y
        alpha = calibration.rotation_y_to_alpha(detection.rotation_y, old_u_img)
        detection = replace(detection, rotation_y=calibration.alpha_to_rotation_y(alpha, new_u_img))
    return _place(detection, moved_cam)


def _center_cam(obj: Object3d) -> tuple[float, float, float]:
    """Centre of the box [m]; ``location_cam`` is that of its bottom face."""
    x, y, z = obj.location_cam
    return x, y - obj.dimensions[0] / 2, z


def _place(obj: Object3d, center_cam: tuple[float, float, float]) -> Object3d:
    x, y, z = center_cam
    return replace(obj, location_cam=(x, y + obj.dimensions[0] / 2, z))


@dataclass(frozen=True, eq=False)
class Oracle:
    """AP as predicted and with each quantity replaced."""

    results: Mapping[str, KittiResult]  # by the keys of ``TITLES``
    matched: Mapping[str, int]  # by class: detections whose quantities were replaced
    detections: Mapping[str, int]  # by class: all detections
    depth_errors: Sequence[DepthErrors]  # of the prediction, one for each class

    @property
    def classes(self) -> tuple[str, ...]:
        """Evaluated classes."""
        return self.results[PREDICTED].classes

    def ap(self, quantity: str, cls: str, metric: str, overlap: str = "official") -> np.ndarray:
        """AP40 [%] at easy, moderate and hard; NaN where there is no figure."""
        return np.array([self.results[quantity].ap(cls, metric, name, overlap) for name in DIFFICULTIES])

    def to_json(self) -> dict[str, Any]:
        """Plain dict: class -> overlap -> metric -> quantity -> [easy, moderate, hard] AP40 [%], with NaN."""

        def figures(cls: str, overlap: str) -> dict[str, Any]:
            return {m: {name: self.ap(name, cls, m, overlap).tolist() for name in TITLES} for m in METRICS}

        counts = {cls: {"detections": self.detections[cls], "matched": self.matched[cls]} for cls in self.classes}
        return {cls: {**counts[cls], **{overlap: figures(cls, overlap) for overlap in OVERLAPS}} for cls in counts}

    def table(self) -> str:
        """AP40 in 3D and BEV at both overlaps and, in brackets, the gain over the prediction."""
        blocks = []
        for cls in self.classes:
            blocks.append(f"{cls}: {self.matched[cls]} of {self.detections[cls]} detections have a ground truth")
            for overlap in OVERLAPS:
                least = self.results[PREDICTED].overlaps[overlap][cls]["3d"]
                columns = [f"{METRIC_TITLES[metric]} {name}" for metric in METRICS for name in DIFFICULTIES]
                rows = [[f"AP40 [%], overlap > {least:.2f}", *columns]]
                rows += [[title, *self._cells(name, cls, overlap)] for name, title in TITLES.items()]
                blocks.append(text_table(rows))
        return "\n\n".join(blocks)

    def _cells(self, quantity: str, cls: str, overlap: str) -> list[str]:
        ap = np.concatenate([self.ap(quantity, cls, metric, overlap) for metric in METRICS])
        gains = ap - np.concatenate([self.ap(PREDICTED, cls, metric, overlap) for metric in METRICS])
        texts = [f" ({gain:+.2f})" if quantity != PREDICTED else "" for gain in gains]
        return ["-" if math.isnan(value) else f"{value:.2f}{text}" for value, text in zip(ap, texts, strict=True)]


def replace_and_evaluate(
    labels: Sequence[Sequence[Object3d]],
    detections: Sequence[Sequence[Object3d]],
    calibrations: Sequence[Calibration],
    classes: Sequence[str],
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> Oracle:
    """Evaluate the detections of each frame as they are and with each of ``QUANTITIES`` from ground truth.

    Only the detections of ``ROUNDED`` have the two decimals of result files. Matches behind the camera are not
    replaced. Raises ValueError as ``evaluate_annotations``, for unequal numbers of frames too.
    """
    names = type_names_for(classes)
    true, predicted = Annotations.from_objects(labels, False, names), Annotations.from_objects(detections, True, names)
    gts = [label for objects in labels for label in objects]
    dets = [(frame, obj) for frame, objects in enumerate(detections) for obj in objects]
    matches = {det: gts[gt] for cls in classes for gt, det in match_in_image(true, predicted, cls).items()}
    matches = {d: gt for d, gt in matches.items() if min(gt.location_cam[2], dets[d][1].location_cam[2]) > 0}

    def evaluate(objects: Sequence[Object3d]) -> KittiResult:
        frames = [objects[first:end] for first, end in pairwise(predicted.offsets.tolist())]
        return evaluate_annotations(true, Annotations.from_objects(frames, True, names), classes, (), own_overlaps)

    results = {PREDICTED: evaluate([obj for _, obj in dets])}
    for quantity in QUANTITIES:
        results[quantity] = evaluate([
            replace_quantity(obj, matches[row], calibrations[frame], quantity) if row in matches else obj
            for row, (frame, obj) in enumerate(dets)
        ])  # fmt: skip
    results[ROUNDED] = evaluate([Object3d.from_line(obj.to_result_line()) for _, obj in dets])
    types = [obj.type for _, obj in dets]
    matched = [types[row] for row in matches]
    n_matched, n_detections = ({cls: some.count(cls) for cls in classes} for some in (matched, types))
    return Oracle(results, n_matched, n_detections, [depth_errors(true, predicted, cls) for cls in classes])
