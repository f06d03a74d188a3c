"""Bird's-eye view: the camera at the middle of the bottom edge, x to the right, z upwards."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..structures import Calibration, Object3d
from .style import Style, class_colour, draw_line, put_text, select_3d_boxes

RANGE_M = 70.0
_BACKGROUND = (38, 38, 38)
_GRID_COLOUR = (85, 85, 85)
_FIELD_COLOUR = (140, 140, 140)
_GRID_STEP_M = 10


def birds_eye_pixels(points_cam: np.ndarray, size: tuple[int, int], range_m: float = RANGE_M) -> np.ndarray:
    """Points (N, 3) [m] -> pixels (N, 2) of a view of ``size`` (width, height) that reaches ``range_m`` ahead."""
    width, height = size
    scale = height / range_m
    points = np.asarray(points_cam, dtype=np.float64)
    return np.stack([width / 2 + points[:, 0] * scale, height - 1 - points[:, 2] * scale], axis=1)


def draw_birds_eye(
    groups: Sequence[tuple[Sequence[Object3d], Style]],
    size: tuple[int, int] = (375, 375),
    calibration: Calibration | None = None,
    image_width: int = 1242,
    range_m: float = RANGE_M,
) -> np.ndarray:
    """Footprints with their headings, rings every 10 m, and the camera's field of view: (height, width, 3) uint8, RGB.

    ``groups``: objects with their style, drawn in this order; objects without a 3D box are left out. ``size``: (width,
    height) [px]. ``calibration``: gives the field of view, with ``image_width`` [px]; None: it is not drawn.
    ``range_m``: depth at the upper edge [m]. Raises ValueError for a size or range that is not positive.
    """
    width, height = size
    if width < 1 or height < 1 or range_m <= 0:
        raise ValueError(f"size and range must be positive, got {size} and {range_m}")
    view = np.full((height, width, 3), _BACKGROUND, np.uint8)
    _draw_grid(view, range_m)
    if calibration is not None:
        for column in (0.0, image_width - 1.0):  # rays through the left and right edges of the image
            ray = np.array([calibration.back_project(column, calibration.cv, z) for z in (0.01, 1.5 * range_m)])
            start, end = birds_eye_pixels(ray, size, range_m).round().astype(int).tolist()
            cv2.line(view, start, end, _FIELD_COLOUR, 1, cv2.LINE_AA)
    for objects, style in groups:
        for item in select_3d_boxes(objects):
            _draw_footprint(view, item, style, range_m)
    return view


def _draw_grid(view: np.ndarray, range_m: float) -> None:
    height, width = view.shape[:2]
    x, y = width // 2, height - 1  # of the camera
    growth = max(1.0, height / 540)
    for distance in range(_GRID_STEP_M, int(range_m) + 1, _GRID_STEP_M):
        radius = round(distance * height / range_m)
        cv2.circle(view, (x, y), radius, _GRID_COLOUR, round(growth), cv2.LINE_AA)
        if distance % (2 * _GRID_STEP_M) == 0:
            corner = (x + 3, y - radius + round(12 * growth))
            put_text(view, f"{distance} m", corner, (190, 190, 190), 0.35 * growth)
    cv2.line(view, (x, y), (x, 0), _GRID_COLOUR, round(growth))


def _draw_footprint(view: np.ndarray, item: Object3d, style: Style, range_m: float) -> None:
    """The bottom face of the box, and a line from its centre across the front edge."""
    size = (view.shape[1], view.shape[0])
    corners = item.corners_cam()[:4]
    pixels = birds_eye_pixels(corners, size, range_m)
    colour = class_colour(item.type)
    for k in range(4):
        draw_line(view, pixels[[k, (k + 1) % 4]], colour, style.thickness, style.dashed)
    centre = corners.mean(axis=0)
    nose = centre + 1.4 * (0.5 * (corners[0] + corners[1]) - centre)
    draw_line(view, birds_eye_pixels(np.stack([centre, nose]), size, range_m), colour, style.thickness)
