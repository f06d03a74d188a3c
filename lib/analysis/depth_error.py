"""How wrong the depth of detected objects is, by distance. AP mixes this error with all others; here it is alone.

Definition, for one class:

- Ground truth counts where it is of the class and no harder than 'hard' (KITTI's rules, see ``validity``). What is
  harder, neighbouring types (Van for Car), and what has no depth (z <= 0; KITTI's mark is -1000) does not count, but
  may be matched, so that its detection is not given to the object beside it. DontCare areas have no depth and play no
  part.
- Within a frame the detections of the class, by descending score (equal ones in file order), each take the free ground
  truth that they overlap most in the image (2D IoU, at least 0.5; of equal ones the first). A detection without depth
  (z = -1000) takes none. Matching looks at the image alone: in 3D, only what has a small error would match.
- The error of a match is z of the detection minus z of the ground truth, so positive means too far. Bands are of the
  ground truth's z. Unmatched detections do not matter here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.annotations import BBOX, SCORE, Annotations, Z
from ..evaluation.ignore_rules import IGNORED, VALID, label_states
from ..evaluation.iou import bbox_overlaps, candidate_pairs

DEPTH_BANDS = tuple((float(near), float(near + 10)) for near in range(0, 70, 10))
"""[m] of ground truth's z"""
MIN_OVERLAP = 0.5
_NO_DEPTH = -1000.0


class Matches(NamedTuple):
    """Who was found, M matches of N ground truths."""

    gt_rows: np.ndarray
    """(M,) int64, rows of the labels, ascending; only ground truth that counts"""
    det_rows: np.ndarray
    """(M,) int64, rows of the detections"""
    counts: np.ndarray
    """(N,) bool: ground truth that counts, found or not"""


@dataclass(frozen=True)
class DepthError:
    """The errors of one range of distances; NaN where nothing was found (recall: where nothing was to be found)."""

    near: float
    """[m]"""
    far: float
    """[m], not included"""
    ground_truth: int
    found: int
    recall: float
    """found / ground_truth"""
    median_absolute: float
    """of |error| [m]"""
    mean_absolute: float
    """of |error| [m]"""
    median_signed: float
    """of the error [m]; positive: too far"""
    mean_signed: float
    """of the error [m]"""
    mean_relative: float
    """of |error| / ground truth's z"""

    def to_json(self) -> dict[str, float | None]:
        """Plain dict; None for NaN and for an infinite ``far``."""
        return {name: value if math.isfinite(value) else None for name, value in dataclasses.asdict(self).items()}


@dataclass(frozen=True, eq=False)
class DepthErrors:
    """The depth errors of one class."""

    cls: str
    bands: tuple[DepthError, ...]
    total: DepthError
    """at any distance, what lies beyond the last band too"""
    z_gt: np.ndarray
    """(M,) z of ground truth [m], one for each match"""
    z_det: np.ndarray
    """(M,) z of its detection [m]"""
    matches: Matches

    def to_json(self) -> dict[str, Any]:
        """Plain dict: class, total and bands."""
        return {"class": self.cls, "total": self.total.to_json(), "bands": [band.to_json() for band in self.bands]}

    def rows(self) -> list[list[str]]:
        """The table's cells as text, the header first; '-' where there is no figure."""
        header = ["depth [m]", "objects", "found", "median |e|", "mean |e|", "median e", "mean e", "mean |e|/z"]
        return [header, *(_cells(_name(band), band) for band in self.bands), _cells("all", self.total)]

    def table(self) -> str:
        """All figures as text."""
        lines = ["".join(f"{cell:>12}" for cell in row) for row in self.rows()]
        return "\n".join([f"{self.cls}: depth error e [m] of objects found in the image (2D IoU >= 0.5)", *lines])


def depth_errors(
    labels: Annotations,
    detections: Annotations,
    cls: str,
    bands: Sequence[tuple[float, float]] = DEPTH_BANDS,
    min_score: float = -math.inf,
) -> DepthErrors:
    """Compare the depth of one class's detections with ground truth, by the definition above.

    ``bands``: (near, far) [m]. ``min_score``: detections below are left out. Raises ValueError for a class that the
    annotations do not know, unequal numbers of frames, or a band without extent.
    """
    for near, far in bands:
        if not near < far:
            raise ValueError(f"bands: near must be below far, got ({near}, {far})")
    matches = match_in_image(labels, detections, cls, min_score)
    z, z_gt = labels.values[matches.counts, Z], labels.values[matches.gt_rows, Z]
    z_det = detections.values[matches.det_rows, Z]

    def figures(near: float, far: float) -> DepthError:
        total = int(np.count_nonzero((z >= near) & (z < far)))
        inside = (z_gt >= near) & (z_gt < far)
        return _summary((near, far), total, z_gt[inside], z_det[inside] - z_gt[inside])

    return DepthErrors(
        cls, tuple(figures(near, far) for near, far in bands), figures(0.0, math.inf), z_gt, z_det, matches
    )


def match_in_image(
    labels: Annotations, detections: Annotations, cls: str, min_score: float = -math.inf
) -> Matches:
    """Greedy matching by score and 2D overlap, as defined above. Raises ValueError."""
    found = found_in_image(labels, detections, cls, min_score)
    counts = (label_states(labels, cls, "hard", None) == VALID) & (labels.values[:, Z] > 0)
    rows = np.array([gt for gt in sorted(found) if counts[gt]], dtype=np.int64)
    return Matches(rows, np.array([found[gt] for gt in rows.tolist()], dtype=np.int64), counts)


def found_in_image(
    labels: Annotations, detections: Annotations, cls: str, min_score: float = -math.inf
) -> dict[int, int]:
    """Row of a ground truth -> row of its detection, for all that may be matched, whether it counts or not."""
    if labels.n_frames != detections.n_frames:
        raise ValueError(f"labels have {labels.n_frames} frames, detections have {detections.n_frames}")
    if cls not in labels.type_names or cls not in detections.type_names:
        raise ValueError(f"cls: the annotations do not know {cls!r}; give their type_names")
    states = label_states(labels, cls, "hard", None)
    scores = detections.values[:, SCORE]
    playing = detections.types == detections.type_names.index(cls)
    playing &= (detections.values[:, Z] != _NO_DEPTH) & (scores >= min_score)

    starts, det_rows = candidate_pairs(labels, detections)
    gt_rows = np.repeat(np.arange(len(states)), np.diff(starts))
    kept = np.isin(states[gt_rows], (VALID, IGNORED)) & playing[det_rows]
    gt_rows, det_rows = gt_rows[kept], det_rows[kept]
    overlaps = bbox_overlaps(
        labels.values[gt_rows, BBOX], detections.values[det_rows, BBOX], np.zeros(len(gt_rows), dtype=np.bool_)
    )
    # no detection belongs to two frames, so all frames can be gone through in one order of scores
    order = np.lexsort((gt_rows, -overlaps, det_rows, -scores[det_rows]))
    found: dict[int, int] = {}
    busy: set[int] = set()
    for pair in order[overlaps[order] >= MIN_OVERLAP].tolist():
        gt, det = int(gt_rows[pair]), int(det_rows[pair])
        if gt not in found and det not in busy:
            found[gt] = det
            busy.add(det)
    return found


def _summary(band: tuple[float, float], ground_truth: int, z_gt: np.ndarray, error: np.ndarray) -> DepthError:
    recall = len(error) / ground_truth if ground_truth else math.nan
    if not len(error):
        return DepthError(*band, ground_truth, 0, recall, *[math.nan] * 5)
    absolute = np.abs(error)
    figures = np.median(absolute), absolute.mean(), np.median(error), error.mean(), (absolute / z_gt).mean()
    return DepthError(*band, ground_truth, len(error), recall, *map(float, figures))


def _name(band: DepthError) -> str:
    return f"{band.near:g}-{band.far:g}"


def _cells(name: str, error: DepthError) -> list[str]:
    def text(value: float, form: str) -> str:
        return "-" if math.isnan(value) else format(value, form)

    return [
        *(name, str(error.ground_truth), text(error.recall, ".1%")),
        *(text(error.median_absolute, ".2f"), text(error.mean_absolute, ".2f")),
        *(text(error.median_signed, "+.2f"), text(error.mean_signed, "+.2f"), text(error.mean_relative, ".1%")),
    ]
