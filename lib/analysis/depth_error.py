"""Depth error of detected objects by distance. AP mixes this error with all others; here it is measured alone.

Definition, for one class:

- Ground truth counts if it is of the class and valid at 'hard'. Harder objects, neighbouring types (Van for Car) and
  objects without depth (z <= 0; KITTI writes -1000) do not count, but can be matched, so that their detection is not
  assigned to the object beside them. DontCare areas are not used.
- Within a frame the detections of the class with a depth (z != -1000) are taken by descending score (equal scores in
  file order). Each is matched to the free ground truth with the largest 2D IoU, if that is at least 0.5 (equal ones:
  the first). The matching uses the image alone: a matching in 3D would keep small errors only.
- The error of a match is z of the detection minus z of the ground truth. Unmatched detections have no effect.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.annotations import BBOX, SCORE, Annotations, Z
from ..evaluation.bootstrap import Draws
from ..evaluation.ignore_rules import IGNORED, VALID, label_states
from ..evaluation.iou import bbox_overlaps, candidate_pairs
from ..ops.text import text_table
from ..system.files import without_nan

DEPTH_BANDS = tuple((float(near), float(near + 10)) for near in range(0, 70, 10))
"""(near, far) of ground truth's z [m]; far is not included"""
MIN_OVERLAP = 0.5
_NO_DEPTH = -1000.0


@dataclass(frozen=True)
class DepthError:
    """The errors in one distance band; NaN where nothing was found (recall: where there is no ground truth)."""

    near: float  # [m]
    far: float  # [m], not included
    ground_truth: int
    found: int
    recall: float  # found / ground_truth
    median_absolute: float  # of |error| [m]
    mean_absolute: float  # of |error| [m]
    median_signed: float  # of the error [m]; positive: too far
    mean_signed: float  # of the error [m]
    mean_relative: float  # of |error| / ground truth's z

    def cells(self) -> list[str]:
        """All but the band as text; '-' where there is no figure."""
        figures = [self.recall, self.median_absolute, self.mean_absolute, self.median_signed, self.mean_signed]
        texts = map(format, (*figures, self.mean_relative), (".1%", ".2f", ".2f", "+.2f", "+.2f", ".1%"))
        return [str(self.ground_truth), *("-" if "nan" in text else text for text in texts)]


@dataclass(frozen=True)
class DepthErrors:
    cls: str
    bands: tuple[DepthError, ...]  # by ``DEPTH_BANDS``
    total: DepthError  # at any distance, beyond the last band too

    def to_json(self) -> dict[str, Any]:
        """Plain dict: class, total and bands; None for NaN and for the infinite ``far`` of the total."""
        tree = dataclasses.asdict(self)
        return without_nan({"class": tree["cls"], "total": tree["total"], "bands": tree["bands"]})

    def rows(self) -> list[list[str]]:
        """The table's cells as text, the header first; '-' where there is no figure."""
        header = ["depth [m]", "objects", "found", "median |e|", "mean |e|", "median e", "mean e", "mean |e|/z"]
        bands = [[f"{band.near:g}-{band.far:g}", *band.cells()] for band in self.bands]
        return [header, *bands, ["all", *self.total.cells()]]

    def table(self) -> str:
        """All figures as text."""
        title = f"{self.cls}: depth error e [m] of objects found in the image (2D IoU >= {MIN_OVERLAP:g})"
        return f"{title}\n{text_table(self.rows())}"


def depth_errors(labels: Annotations, detections: Annotations, cls: str) -> DepthErrors:
    """Compare the depth of one class's detections with ground truth, by the definition above.

    Raises ValueError for a class that is not in the annotations' type names, or for unequal numbers of frames.
    """
    counts, error = _errors(labels, detections, cls)
    z = labels.values[:, Z]

    def summarize(near: float, far: float) -> DepthError:
        inside = counts & (z >= near) & (z < far)
        total, inside = int(inside.sum()), inside & ~np.isnan(error)
        e, found = error[inside], int(inside.sum())
        recall = found / total if total else math.nan
        if not found:
            return DepthError(near, far, total, 0, recall, *[math.nan] * 5)
        figures = (np.median(abs(e)), abs(e).mean(), np.median(e), e.mean(), (abs(e) / z[inside]).mean())
        return DepthError(near, far, total, found, recall, *map(float, figures))

    return DepthErrors(cls, tuple(summarize(*band) for band in DEPTH_BANDS), summarize(0.0, math.inf))


def resample_depth_errors(
    labels: Annotations, detections: Annotations, cls: str, draws: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """The total's ``median_absolute`` [m] and ``recall`` in each replicate of a bootstrap, both (R,); NaN as there.

    Raises ValueError as :func:`depth_errors`.
    """
    counts, error = _errors(labels, detections, cls)
    cluster = np.repeat(draws.of_frame, np.diff(labels.offsets))  # of each object
    found = counts & ~np.isnan(error)
    drawn = (np.repeat(abs(error[found]), weights[cluster[found]]) for weights in draws.weights)
    medians, numbers = np.array([(np.median(e) if len(e) else math.nan, len(e)) for e in drawn]).T
    objects = draws.weights @ np.bincount(cluster[counts], minlength=draws.weights.shape[1])
    return medians, np.divide(numbers, objects, out=np.full(len(numbers), math.nan), where=objects > 0)


def _errors(labels: Annotations, detections: Annotations, cls: str) -> tuple[np.ndarray, np.ndarray]:
    """For each label whether it counts, and the error of its match [m], NaN without one; both (N,)."""
    z = labels.values[:, Z]
    error = np.full(len(z), math.nan)
    for gt, det in match_in_image(labels, detections, cls).items():
        error[gt] = detections.values[det, Z] - z[gt]
    return (label_states(labels, cls, "hard") == VALID) & (z > 0), error


def match_in_image(labels: Annotations, detections: Annotations, cls: str) -> dict[int, int]:
    """Greedy matching by score and 2D IoU, as defined above: row of a ground truth -> row of its detection.

    Includes ground truth that does not count. Raises ValueError as :func:`depth_errors`.
    """
    if labels.n_frames != detections.n_frames:
        raise ValueError(f"labels have {labels.n_frames} frames, detections have {detections.n_frames}")
    if cls not in labels.type_names or cls not in detections.type_names:
        raise ValueError(f"cls: {cls!r} is not in the annotations' type_names")
    states = label_states(labels, cls, "hard")
    scores = detections.values[:, SCORE]
    used = (detections.types == detections.type_names.index(cls)) & (detections.values[:, Z] != _NO_DEPTH)
    gt_rows, det_rows = candidate_pairs(labels, detections)
    kept = np.isin(states[gt_rows], (VALID, IGNORED)) & used[det_rows]
    gt_rows, det_rows = gt_rows[kept], det_rows[kept]
    boxes = labels.values[gt_rows, BBOX], detections.values[det_rows, BBOX]
    overlaps = bbox_overlaps(*boxes, np.zeros(len(gt_rows), dtype=np.bool_))
    # a detection belongs to one frame only, so one order of scores serves all frames
    order = np.lexsort((gt_rows, -overlaps, det_rows, -scores[det_rows]))
    matches: dict[int, int] = {}
    taken: set[int] = set()
    for pair in order[overlaps[order] >= MIN_OVERLAP].tolist():
        gt, det = int(gt_rows[pair]), int(det_rows[pair])
        if gt not in matches and det not in taken:
            matches[gt] = det
            taken.add(det)
    return matches
