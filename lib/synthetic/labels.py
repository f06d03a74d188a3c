"""What is measured after rendering: 2D box, truncation, occlusion and observation angle of each object.

Occlusion states, from the visible share of the silhouette's pixels inside the image: 0 from 85 %, 1 from 50 %,
2 from 12 %, 3 (KITTI: unknown) below. Objects with fewer than ``MIN_PIXELS`` visible pixels get no line.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..ops.angles import wrap_angle
from ..structures import Calibration, Object3d
from .raster import Silhouette, clip_near

OCCLUSION_SHARES = (0.85, 0.50, 0.12)
MIN_PIXELS = 6
DONT_CARE_BEYOND_M = 70.0
"""random scenes: objects farther away become DontCare boxes, as annotators could not see them either"""


def clip_box(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], float]:
    """The box inside an image of ``size`` (width, height) and the share of its area outside, 0..1."""
    width, height = size
    x1, y1 = min(max(box[0], 0.0), width - 1.0), min(max(box[1], 0.0), height - 1.0)
    x2, y2 = min(max(box[2], 0.0), width - 1.0), min(max(box[3], 0.0), height - 1.0)
    whole = max((box[2] - box[0]) * (box[3] - box[1]), 1e-9)
    return (x1, y1, x2, y2), min(max(1.0 - (x2 - x1) * (y2 - y1) / whole, 0.0), 1.0)


def occlusion_state(visible_share: float) -> int:
    """KITTI's occluded column from the visible share of the silhouette."""
    return sum(visible_share < limit for limit in OCCLUSION_SHARES)


def measure(
    item: Object3d,
    visible: int,
    silhouette: Silhouette,
    size: tuple[int, int],
    dont_care_beyond: float,
) -> Object3d | None:
    """The label of a rendered object, rounded as in a file; None when it is not to be seen.

    ``visible``: pixels that nothing nearer hides.
    """
    if visible < MIN_PIXELS:
        return None
    inside, truncated = clip_box(silhouette.box_img, size)
    x1, y1, x2, y2 = (round(v, 2) for v in inside)
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None
    if item.location_cam[2] > dont_care_beyond:
        return Object3d("DontCare", -1.0, -1, -10.0, (x1, y1, x2, y2), (-1.0,) * 3, (-1000.0,) * 3, -10.0)
    x, _, z = item.location_cam
    return replace(
        item,
        truncated=round(truncated, 2),
        occluded=occlusion_state(visible / silhouette.pixels),
        alpha=round(wrap_angle(item.rotation_y - math.atan2(x, z)), 2),
        bbox_img=(x1, y1, x2, y2),
    )


def is_in_view(item: Object3d, calibration: Calibration, size: tuple[int, int]) -> bool:
    """Whether any part of the 3D box can be inside the image: a cheap test before building the solid."""
    corners = item.corners_cam()
    faces = corners[np.array([(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)])]
    polygons = [clip_near(face) for face in faces]
    points = [calibration.project(polygon) for polygon in polygons if len(polygon)]
    if not points:
        return False
    stacked = np.concatenate(points)
    (x1, y1), (x2, y2) = stacked.min(axis=0), stacked.max(axis=0)
    return bool(x2 >= 0 and y2 >= 0 and x1 <= size[0] - 1 and y1 <= size[1] - 1)
