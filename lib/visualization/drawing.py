"""3D boxes on an image, alone or beside the bird's-eye view.

Every function returns a new RGB image (H, W, 3) uint8 and leaves its input unchanged.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..structures import Calibration, Object3d
from .birds_eye import RANGE_M, draw_birds_eye
from .style import (
    DETECTION_STYLE,
    LABEL_STYLE,
    Colour,
    Style,
    checked_copy,
    class_colour,
    draw_line,
    put_text,
    select_3d_boxes,
    text_area,
)

NEAR_M = 0.1  # edges are clipped at this depth [m], since nothing behind the camera projects to a pixel
_FRONT_OPACITY = 0.12
# corner numbers as in Object3d.corners_cam: bottom 0..3 from front right, top 4..7 above them
_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FRONT_FACE = (0, 1, 5, 4)
_FRONT_CROSS = ((0, 5), (1, 4))
_LEGEND_COLOUR = (255, 255, 255)
Objects = Sequence[Object3d]


def clip_segment(start_cam: np.ndarray, end_cam: np.ndarray, near: float = NEAR_M) -> np.ndarray | None:
    """The part of a segment with z >= near, (2, 3) [m]; None if there is none."""
    ends = np.array([start_cam, end_cam], dtype=np.float64)
    behind = ends[:, 2] < near
    if behind.all():
        return None
    if behind.any():
        a, b = ends
        ends[behind] = a + (near - a[2]) / (b[2] - a[2]) * (b - a)
    return ends


def draw_boxes_3d(
    image_rgb: np.ndarray,
    objects: Objects,
    calibration: Calibration,
    style: Style = DETECTION_STYLE,
    details: bool = True,
) -> np.ndarray:
    """The edges of the 3D boxes, each class in its colour. DontCare is left out.

    ``details``: tint and cross the front faces, and write class, depth and score, the nearest first; a text that would
    cover another one is left out.
    """
    image = checked_copy(image_rgb)
    texts: list[tuple[str, tuple[int, int], Colour]] = []
    for item in sorted(select_3d_boxes(objects), key=lambda o: -o.location_cam[2]):
        corners = item.corners_cam()
        colour = class_colour(item.type)
        if details:
            _tint_front(image, corners[list(_FRONT_FACE)], calibration, colour)
        for i, j in (*_EDGES, *(_FRONT_CROSS if details else ())):
            segment = clip_segment(corners[i], corners[j])
            if segment is not None:
                thickness = 1 if (i, j) in _FRONT_CROSS else style.thickness
                draw_line(image, calibration.project(segment), colour, thickness, style.dashed)
        visible = corners[corners[:, 2] >= NEAR_M]
        if len(visible):
            pixels = np.clip(calibration.project(visible), -1e6, 1e6)
            left, top = pixels.min(axis=0).astype(int).tolist()
            if left < image.shape[1] and top < image.shape[0] and (pixels.max(axis=0) > 0).all():
                score = "" if item.score is None else f" {item.score:.2f}"
                texts.append((f"{item.type} {item.location_cam[2]:.1f}m{score}", (left, top - 2), colour))
    taken: list[tuple[int, int, int, int]] = []
    for words, corner, colour in reversed(texts) if details else ():
        left, top, right, bottom = text_area(image, words, corner, style.text_scale)
        if all(left >= x2 or right <= x1 or top >= y2 or bottom <= y1 for x1, y1, x2, y2 in taken):
            put_text(image, words, corner, colour, style.text_scale)
            taken.append((left, top, right, bottom))
    return image


def draw_comparison(
    image_rgb: np.ndarray, calibration: Calibration, labels: Objects | None, detections: Objects | None
) -> np.ndarray:
    """The image with the 3D boxes of labels and detections, and to its right a square bird's-eye view of them.

    Labels have dashed lines, detections solid ones. A group that is None (the test split has no labels) is left out,
    also from the legend. Front faces and text are those of the detections, or of the labels if there are no detections.
    An image lower than 214 px is enlarged by a whole factor, so that its text stays readable.
    """
    image, calibration = _enlarged(image_rgb, calibration)
    both = ((labels, LABEL_STYLE), (detections, DETECTION_STYLE))
    groups = [(objects, style) for objects, style in both if objects is not None]
    for k, (objects, style) in enumerate(groups, 1):
        image = draw_boxes_3d(image, objects, calibration, style, details=k == len(groups))
    height, width = image.shape[:2]
    view = draw_birds_eye(groups, (height, height), calibration, image_width=width)
    _draw_legend(view, [(select_3d_boxes(objects), style) for objects, style in groups])
    return np.concatenate([image, view], axis=1)


def draw_detections(
    image_rgb: np.ndarray, calibration: Calibration, detections: Objects, range_m: float = RANGE_M
) -> np.ndarray:
    """The image with the 3D boxes, and to its right, no wider than the image, the bird's-eye view up to ``range_m``.

    Small images are enlarged as in :func:`draw_comparison`. On images higher than 540 px lines and text grow with the
    height, so that they stay visible when the result is shown small.
    """
    image, calibration = _enlarged(image_rgb, calibration)
    height, width = image.shape[:2]
    growth = max(1.0, height / 540)
    style = replace(DETECTION_STYLE, thickness=round(2 * growth), text_scale=DETECTION_STYLE.text_scale * growth)
    image = draw_boxes_3d(image, detections, calibration, style)
    size = (min(height, width), height)
    view = draw_birds_eye([(detections, style)], size, calibration, image_width=width, range_m=range_m)
    return np.concatenate([image, view], axis=1)


def _enlarged(image_rgb: np.ndarray, calibration: Calibration) -> tuple[np.ndarray, Calibration]:
    """A copy, by a whole factor to about 320 px of height, and the calibration of the copy."""
    factor = max(1, round(320 / image_rgb.shape[0]))
    image = checked_copy(image_rgb)
    if factor > 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        calibration = Calibration(calibration.P2 * np.array([[factor], [factor], [1.0]]))
    return image, calibration


def _tint_front(image: np.ndarray, face_cam: np.ndarray, calibration: Calibration, colour: Colour) -> None:
    """Fill the front face (4, 3) [m] transparently, unless a part of it lies behind the camera."""
    if face_cam[:, 2].min() < NEAR_M:
        return
    pixels = calibration.project(face_cam)
    if np.abs(pixels).max() > 1e5:
        return
    ends = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0)) + 1
    (left, top), (right, bottom) = np.clip(ends, 0, image.shape[1::-1]).astype(int).tolist()
    if right <= left or bottom <= top:
        return
    view = image[top:bottom, left:right]
    filled = view.copy()
    cv2.fillConvexPoly(filled, np.round((pixels - (left, top)) * 16).astype(np.int32), colour, cv2.LINE_AA, 4)
    view[:] = cv2.addWeighted(filled, _FRONT_OPACITY, view, 1 - _FRONT_OPACITY, 0)


def _draw_legend(image: np.ndarray, groups: Sequence[tuple[Objects, Style]]) -> None:
    """At the lower left: a line sample, the name and the number of objects of each group; then the classes."""
    types = dict.fromkeys(item.type for objects, _ in groups for item in objects)
    rows = [(f"{style.name}s ({len(objects)})", _LEGEND_COLOUR, style) for objects, style in groups]
    rows += [(name, class_colour(name), DETECTION_STYLE) for name in types]
    for row, (words, colour, style) in enumerate(reversed(rows)):
        y = image.shape[0] - 6 - 18 * row
        put_text(image, words, (44, y + 4), colour, 0.45)
        draw_line(image, np.array([[8, y - 4], [38, y - 4]]), colour, style.thickness, style.dashed)
