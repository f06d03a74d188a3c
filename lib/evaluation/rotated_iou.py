"""Overlaps of rotated boxes in bird's eye view and in 3D, by exact convex clipping in float64.

P pairs. A 3D box is KITTI's (height, width, length, x, y, z, rotation_y) [m, rad] in the camera frame: (x, y, z) is
the centre of the bottom face, the box spans [y - height, y], and rotation_y = 0 lays ``length`` along x.

The detection's rectangle is moved into the frame of the ground truth's, where clipping means four comparisons with
+-length/2 and +-width/2. Coordinates stay small there, edges that coincide stay exactly equal, and nearly collinear
edges need no tolerance.
"""

import math

import numpy as np

from .compilation import compiled

_HEIGHT, _WIDTH, _LENGTH, _X, _Y, _Z, _TURN = range(7)
_SLIVER = 1e-12  # shares of a size below it count as 0: rounding leaves boxes that only touch with about 1e-15
_MAX_VERTICES = 64  # 4 * 2**4: a clip at most doubles the vertices (it adds one, but rounding gives no proof of that)


def rotated_overlaps(
    gt_boxes: np.ndarray, det_boxes: np.ndarray, over_detection: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Overlap of each pair of boxes, (P, 7) and (P, 7) -> bird's eye view (P,) and 3D (P,), in [0, 1].

    Intersection over union, or over the detection's area (volume) where ``over_detection`` (P,) is set. Identical
    boxes give exactly 1, touching ones 0; a box with a size that is not positive overlaps nothing.
    """
    if gt_boxes.shape != det_boxes.shape or gt_boxes.ndim != 2 or gt_boxes.shape[1] != 7:
        raise ValueError(f"expected two arrays (P, 7), got {gt_boxes.shape} and {det_boxes.shape}")
    if over_detection is None:
        over_detection = np.zeros(len(gt_boxes), dtype=np.bool_)
    gt_boxes = np.array(gt_boxes, dtype=np.float64, order="C")
    det_boxes = np.array(det_boxes, dtype=np.float64, order="C")
    bev, volume = np.zeros(len(gt_boxes)), np.zeros(len(gt_boxes))
    _overlap_pairs(gt_boxes, det_boxes, np.array(over_detection, dtype=np.bool_), bev, volume)
    return bev, volume


@compiled
def _overlap_pairs(gt_boxes, det_boxes, over_detection, bev, volume):  # type: ignore[no-untyped-def]
    polygon, clipped = np.empty((_MAX_VERTICES, 2)), np.empty((_MAX_VERTICES, 2))
    for p in range(len(gt_boxes)):
        gt, det = gt_boxes[p], det_boxes[p]
        gt_area, det_area = gt[_WIDTH] * gt[_LENGTH], det[_WIDTH] * det[_LENGTH]
        if min(gt[_WIDTH], gt[_LENGTH], det[_WIDTH], det[_LENGTH]) <= 0 or min(gt_area, det_area) <= 0:
            continue
        inter = min(_intersection(gt, det, polygon, clipped), gt_area, det_area)
        if not inter > _SLIVER * min(gt_area, det_area):  # "not >" keeps an overflow's NaN out, too
            continue
        bev[p] = _ratio(inter, gt_area, det_area, over_detection[p])
        shared = _shared_height(gt, det)
        if shared > 0:
            gt_volume, det_volume = gt_area * gt[_HEIGHT], det_area * det[_HEIGHT]
            volume[p] = _ratio(inter * shared, gt_volume, det_volume, over_detection[p])


@compiled
def _ratio(inter, gt_size, det_size, over_detection):  # type: ignore[no-untyped-def]
    whole = det_size if over_detection else gt_size + det_size - inter
    ratio = inter / whole if whole > 0 else 0.0
    return ratio if 0 < ratio <= 1 else (1.0 if ratio > 1 else 0.0)


@compiled
def _shared_height(gt, det):  # type: ignore[no-untyped-def]
    """Common part [m] of the spans [y - height, y]."""
    smaller = min(gt[_HEIGHT], det[_HEIGHT])
    if smaller <= 0:
        return 0.0
    if gt[_Y] == det[_Y]:
        return smaller  # y - (y - height) would round, and identical boxes would miss 1
    shared = min(gt[_Y], det[_Y]) - max(gt[_Y] - gt[_HEIGHT], det[_Y] - det[_HEIGHT])
    return min(shared, smaller) if shared > _SLIVER * smaller else 0.0


@compiled
def _intersection(gt, det, polygon, clipped):  # type: ignore[no-untyped-def]
    """Common area [m^2] of two rectangles in bird's eye view; ``polygon`` and ``clipped`` are scratch."""
    dx, dz = det[_X] - gt[_X], det[_Z] - gt[_Z]
    cos, sin = math.cos(gt[_TURN]), math.sin(gt[_TURN])
    x, z = cos * dx - sin * dz, sin * dx + cos * dz
    cos, sin = math.cos(det[_TURN] - gt[_TURN]), math.sin(det[_TURN] - gt[_TURN])
    for corner in range(4):
        along = 0.5 * det[_LENGTH] if corner in (0, 3) else -0.5 * det[_LENGTH]
        across = 0.5 * det[_WIDTH] if corner < 2 else -0.5 * det[_WIDTH]
        polygon[corner, 0] = x + cos * along + sin * across
        polygon[corner, 1] = z - sin * along + cos * across
    n = np.int64(4)  # int64, so that numba compiles _clip for one type only
    for axis in range(2):
        half = 0.5 * gt[_LENGTH if axis == 0 else _WIDTH]
        n = _clip(polygon, n, clipped, axis, half)
        n = _clip(clipped, n, polygon, axis, -half)
    doubled = 0.0
    for i in range(1, n - 1):  # triangles from vertex 0: small numbers even where the polygon lies off centre
        ax, az = polygon[i, 0] - polygon[0, 0], polygon[i, 1] - polygon[0, 1]
        bx, bz = polygon[i + 1, 0] - polygon[0, 0], polygon[i + 1, 1] - polygon[0, 1]
        doubled += ax * bz - az * bx
    return 0.5 * abs(doubled)


@compiled
def _clip(polygon, n, clipped, axis, bound):  # type: ignore[no-untyped-def]
    """Cut off what lies beyond the line p[axis] = bound (Sutherland and Hodgman); -> number of vertices."""
    count, sign, limit = 0, math.copysign(1.0, bound), abs(bound)
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        here, there = sign * polygon[i, axis] - limit, sign * polygon[j, axis] - limit
        if here <= 0:
            clipped[count, 0], clipped[count, 1] = polygon[i, 0], polygon[i, 1]
            count += 1
        if (here < 0 < there) or (there < 0 < here):
            t = here / (here - there)
            other = 1 - axis
            clipped[count, axis] = bound
            clipped[count, other] = polygon[i, other] + t * (polygon[j, other] - polygon[i, other])
            count += 1
    return count
