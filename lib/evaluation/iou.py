"""Pairs of objects that may overlap, and overlaps of 2D boxes.

P pairs (row of a ground truth, row of a detection of the same frame). Boxes in 2D: (x1, y1, x2, y2) [px].
"""

import numpy as np

from .annotations import BBOX, LENGTH, OTHER_TYPE, WIDTH, Annotations, X, Z
from .compilation import compiled


def candidate_pairs(labels: Annotations, detections: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one frame whose 2D boxes, or whose circumcircles in bird's eye view, have a point in common.

    Returns the rows of the ground truths (P,) and of the detections (P,), int64, ascending, detections in file order
    for each ground truth. All other pairs overlap by 0 in each metric.
    """
    used = labels.types != OTHER_TYPE  # a Truck, Misc or Tram takes part in no match
    return _find_pairs(labels.offsets, detections.offsets, _outlines(labels), _outlines(detections), used)


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


def _outlines(objects: Annotations) -> np.ndarray:
    """(N, 7) 2D box [px], and x, z, radius [m] of the circumcircle in bird's eye view (-1 for a box without area)."""
    values = objects.values
    radius = 0.5 * np.hypot(values[:, WIDTH], values[:, LENGTH])
    radius[(values[:, WIDTH] <= 0) | (values[:, LENGTH] <= 0)] = -1
    return np.column_stack([values[:, BBOX], values[:, X], values[:, Z], radius])


@compiled
def _find_pairs(gt_offsets, det_offsets, gt, det, used):  # type: ignore[no-untyped-def]
    """``gt`` (N, 7), ``det`` (M, 7): outlines; ``used`` (N,): whether a ground truth can be in a pair."""
    gt_rows, det_rows = [], []
    for frame in range(len(gt_offsets) - 1):
        for i in range(gt_offsets[frame], gt_offsets[frame + 1]):
            if not used[i]:
                continue
            x1, y1, x2, y2, x, z, radius = gt[i]
            for j in range(det_offsets[frame], det_offsets[frame + 1]):
                near = min(x2, det[j, 2]) > max(x1, det[j, 0]) and min(y2, det[j, 3]) > max(y1, det[j, 1])
                if not near and radius > 0 and det[j, 6] > 0:
                    dx, dz, reach = x - det[j, 4], z - det[j, 5], radius + det[j, 6]
                    near = dx * dx + dz * dz <= reach * reach
                if near:
                    gt_rows.append(i)
                    det_rows.append(j)
    return np.array(gt_rows), np.array(det_rows)
