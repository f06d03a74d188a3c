"""Which objects of a frame can overlap at all, and overlaps of 2D boxes.

P pairs (row of a ground truth, row of a detection of the same frame). Boxes in 2D: (x1, y1, x2, y2) [px].
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .annotations import BBOX, LENGTH, OTHER_TYPE, WIDTH, Annotations, X, Z


def candidate_pairs(labels: Annotations, detections: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one frame whose 2D boxes, or whose circumcircles in bird's eye view, have a point in common.

    Returns ``starts`` (N + 1,) and ``rows`` (P,), int64: the detections that ground truth i may overlap are
    ``rows[starts[i]:starts[i + 1]]``, in file order. All other pairs overlap by 0 in each metric.
    """
    gt, det = _outlines(labels), _outlines(detections)
    used = labels.types != OTHER_TYPE  # a Truck, Misc or Tram is nobody's match and no stuff area
    starts = np.zeros(len(used) + 1, dtype=np.int64)
    rows = np.empty(_pair_up(gt, det, used, starts, np.empty(0, dtype=np.int64)), dtype=np.int64)
    _pair_up(gt, det, used, starts, rows)
    return starts, rows


def bbox_overlaps(gt_bbox: np.ndarray, det_bbox: np.ndarray, over_detection: np.ndarray) -> np.ndarray:
    """Overlap of each pair of boxes, (P, 4) and (P, 4) [px] -> (P,) in [0, 1].

    Intersection over union, or over the detection's area where ``over_detection`` (P,) is set (KITTI's measure for
    DontCare areas). A box without area overlaps nothing. The order of operations is the devkit's
    (imageBoxOverlap), since two decimals often put an overlap exactly on the threshold.
    """
    width = np.minimum(gt_bbox[:, 2], det_bbox[:, 2]) - np.maximum(gt_bbox[:, 0], det_bbox[:, 0])
    height = np.minimum(gt_bbox[:, 3], det_bbox[:, 3]) - np.maximum(gt_bbox[:, 1], det_bbox[:, 1])
    inter = np.where((width > 0) & (height > 0), width * height, 0.0)
    det_area = (det_bbox[:, 2] - det_bbox[:, 0]) * (det_bbox[:, 3] - det_bbox[:, 1])
    gt_area = (gt_bbox[:, 2] - gt_bbox[:, 0]) * (gt_bbox[:, 3] - gt_bbox[:, 1])
    whole = np.where(over_detection, det_area, det_area + gt_area - inter)
    overlap = np.zeros(len(inter))
    np.divide(inter, whole, out=overlap, where=(inter > 0) & (whole > 0))
    return overlap


class _Outlines(NamedTuple):
    offsets: np.ndarray
    """(F + 1,) int64"""
    bbox: np.ndarray
    """(N, 4) 2D box [px]"""
    circle: np.ndarray
    """(N, 3) circumcircle in bird's eye view: x, z, radius [m]; radius -1 for a box without area"""


def _outlines(objects: Annotations) -> _Outlines:
    values = objects.values
    radius = 0.5 * np.hypot(values[:, WIDTH], values[:, LENGTH])
    radius[(values[:, WIDTH] <= 0) | (values[:, LENGTH] <= 0)] = -1
    circle = np.stack([values[:, X], values[:, Z], radius], axis=1)
    return _Outlines(objects.offsets, np.ascontiguousarray(values[:, BBOX]), circle)


@numba.njit(cache=True)
def _pair_up(gt, det, used, starts, rows):  # type: ignore[no-untyped-def]
    """Fill ``starts``, and ``rows`` as far as it is long; -> number of pairs. Called to count, then to fill."""
    count = 0
    for frame in range(len(gt.offsets) - 1):
        for i in range(gt.offsets[frame], gt.offsets[frame + 1]):
            starts[i] = count
            if not used[i]:
                continue
            x1, y1, x2, y2 = gt.bbox[i]
            x, z, radius = gt.circle[i]
            for j in range(det.offsets[frame], det.offsets[frame + 1]):
                near = min(x2, det.bbox[j, 2]) > max(x1, det.bbox[j, 0]) and (
                    min(y2, det.bbox[j, 3]) > max(y1, det.bbox[j, 1])
                )
                if not near and radius > 0 and det.circle[j, 2] > 0:
                    dx, dz, reach = x - det.circle[j, 0], z - det.circle[j, 1], radius + det.circle[j, 2]
                    near = dx * dx + dz * dz <= reach * reach
                if near:
                    if count < len(rows):
                        rows[count] = j
                    count += 1
    starts[-1] = count
    return count
