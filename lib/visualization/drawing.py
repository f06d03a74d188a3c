"""3D and 2D boxes on an image, and the panel that compares labels with detections.

Nothing here changes its input: every function returns a new BGR image (H, W, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..structures import Calibration, Object3d
from .birds_eye import RANGE_M, draw_birds_eye
from .style import (
    DETECTION_STYLE,
    DONT_CARE_COLOUR,
    LABEL_STYLE,
    Colour,
    Style,
    checked_copy,
    describe,
    put_text,
    text_area,
)

NEAR_M = 0.1
"""edges are cut off at this depth [m]: behind the camera there is no pixel"""
_FRONT_OPACITY = 0.25
# corner numbers as in Object3d.corners_cam: bottom 0..3 from front right, top 4..7 above them
_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FRONT_FACE = (0, 1, 5, 4)
_FRONT_CROSS = ((0, 5), (1, 4))


def clip_segment(start_cam: np.ndarray, end_cam: np.ndarray, near: float = NEAR_M) -> np.ndarray | None:
    """The part of a segment with z >= near, (2, 3) [m]; None when there is none."""
    a, b = np.asarray(start_cam, dtype=np.float64), np.asarray(end_cam, dtype=np.float64)
    if a[2] < near and b[2] < near:
        return None
    if a[2] < near:
        a = a + (near - a[2]) / (b[2] - a[2]) * (b - a)
    elif b[2] < near:
        b = b + (near - b[2]) / (a[2] - b[2]) * (a - b)
    return np.stack([a, b])


def draw_boxes_3d(
    image_bgr: np.ndarray,
    objects: Sequence[Object3d],
    calibration: Calibration,
    style: Style = DETECTION_STYLE,
    text: bool = True,
) -> np.ndarray:
    """The 3D boxes' edges, front faces tinted and crossed, with class, distance and score. DontCare is left out."""
    image = checked_copy(image_bgr)
    texts: list[tuple[str, tuple[int, int]]] = []
    for item in sorted(_solid_objects(objects), key=lambda o: -o.location_cam[2]):
        corners = item.corners_cam()
        _tint_front(image, corners[list(_FRONT_FACE)], calibration, style.colour)
        for i, j in (*_EDGES, *_FRONT_CROSS):
            segment = clip_segment(corners[i], corners[j])
            if segment is not None:
                thickness = 1 if (i, j) in _FRONT_CROSS else style.thickness
                _line(image, calibration.project(segment), style.colour, thickness)
        visible = corners[corners[:, 2] >= NEAR_M]
        if len(visible):
            pixels = np.clip(calibration.project(visible), -1e6, 1e6)
            left, top = pixels.min(axis=0).astype(int).tolist()
            if left < image.shape[1] and top < image.shape[0] and (pixels.max(axis=0) > 0).all():
                texts.append((describe(item), (left, top - 2)))
    if text:
        _put_texts(image, texts[::-1], style)
    return image


def _put_texts(image: np.ndarray, texts: list[tuple[str, tuple[int, int]]], style: Style) -> None:
    """The nearest first; one that would cover another is left out."""
    taken: list[tuple[int, int, int, int]] = []
    for text, corner in texts:
        left, top, right, bottom = text_area(image, text, corner, style.text_scale)
        if all(left >= x2 or right <= x1 or top >= y2 or bottom <= y1 for x1, y1, x2, y2 in taken):
            put_text(image, text, corner, style.colour, style.text_scale)
            taken.append((left, top, right, bottom))


def draw_boxes_2d(
    image_bgr: np.ndarray, objects: Sequence[Object3d], style: Style = DETECTION_STYLE, text: bool = True
) -> np.ndarray:
    """The 2D boxes; DontCare thin and grey, without text."""
    image = checked_copy(image_bgr)
    for item in objects:
        if not np.isfinite(item.bbox_img).all():
            continue
        x1, y1, x2, y2 = (round(v) for v in np.clip(item.bbox_img, -1e6, 1e6).tolist())
        ignored = item.type == "DontCare"
        colour, thickness = (DONT_CARE_COLOUR, 1) if ignored else (style.colour, style.thickness)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
        if text and not ignored:
            put_text(image, describe(item), (x1, y1 - 2), colour, style.text_scale)
    return image


def draw_comparison(
    image_bgr: np.ndarray,
    calibration: Calibration,
    labels: Sequence[Object3d] | None,
    detections: Sequence[Object3d] | None,
) -> np.ndarray:
    """One panel: the image with both groups of 3D boxes, and beside it the bird's-eye view of the same.

    Labels are wide and orange, detections thin and blue on top of them. Small images are enlarged by a whole factor,
    so that the text can be read; the panel is as high as the image then is, and that much wider for the square view.
    None instead of either group leaves it out, of the legend too: there are no labels in the test split. Text is
    written at the detections, or at labels that stand alone.
    """
    image, calibration = _enlarged(image_bgr, calibration)
    both = ((labels, LABEL_STYLE), (detections, DETECTION_STYLE))
    groups = [(objects, style) for objects, style in both if objects is not None]
    for k, (objects, style) in enumerate(groups, 1):
        image = draw_boxes_3d(image, objects, calibration, style, text=k == len(groups))
    height, width = image.shape[:2]
    _legend(image, [(style, len(_solid_objects(objects))) for objects, style in groups])
    view = draw_birds_eye(groups, (height, height), calibration, image_width=width)
    return np.concatenate([image, view], axis=1)


def draw_detections(
    image_bgr: np.ndarray, calibration: Calibration, detections: Sequence[Object3d], range_m: float = RANGE_M
) -> np.ndarray:
    """One panel: the image with the 3D boxes, and beside it, no wider than the image, the view from above.

    That view shows ``range_m`` ahead. Small images are enlarged as in :func:`draw_comparison`; on large ones lines
    and text grow with the height, so that they can still be seen when the whole panel is.
    """
    image, calibration = _enlarged(image_bgr, calibration)
    height, width = image.shape[:2]
    growth = max(1.0, height / 540)
    style = replace(DETECTION_STYLE, thickness=round(growth), text_scale=DETECTION_STYLE.text_scale * growth)
    image = draw_boxes_3d(image, detections, calibration, style)
    size = (min(height, width), height)
    view = draw_birds_eye([(detections, style)], size, calibration, image_width=width, range_m=range_m)
    return np.concatenate([image, view], axis=1)


def _enlarged(image_bgr: np.ndarray, calibration: Calibration) -> tuple[np.ndarray, Calibration]:
    """A copy, by a whole factor so large that text can be read, and the camera that fits it."""
    factor = max(1, round(320 / image_bgr.shape[0]))
    image = checked_copy(image_bgr)
    if factor > 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        calibration = Calibration(calibration.P2 * np.array([[factor], [factor], [1.0]]))
    return image, calibration


def _solid_objects(objects: Sequence[Object3d]) -> list[Object3d]:
    """Objects that have a 3D box: no DontCare, nothing that is not finite."""
    return [
        item
        for item in objects
        if item.type != "DontCare" and np.isfinite([*item.dimensions, *item.location_cam, item.rotation_y]).all()
    ]


def _line(image: np.ndarray, ends_img: np.ndarray, colour: Colour, thickness: int) -> None:
    """A line between two pixels that may lie far outside."""
    height, width = image.shape[:2]
    (x1, y1), (x2, y2) = np.clip(ends_img, -1e7, 1e7).round().astype(int).tolist()
    margin = 10
    frame = (-margin, -margin, width + 2 * margin, height + 2 * margin)
    visible, start, end = cv2.clipLine(frame, (x1, y1), (x2, y2))
    if visible:
        cv2.line(image, start, end, colour, thickness, cv2.LINE_AA)


def _tint_front(image: np.ndarray, face_cam: np.ndarray, calibration: Calibration, colour: Colour) -> None:
    """Fill the front face (4, 3) [m] half transparently, where it lies before the camera."""
    if face_cam[:, 2].min() < NEAR_M:
        return
    pixels = calibration.project(face_cam)
    if np.abs(pixels).max() > 1e5:
        return
    height, width = image.shape[:2]
    left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int), 0).tolist()
    right, bottom = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 1, (width, height)).tolist()
    if right <= left or bottom <= top:
        return
    view = image[top:bottom, left:right]
    filled = view.copy()
    cv2.fillConvexPoly(filled, np.round((pixels - (left, top)) * 16).astype(np.int32), colour, cv2.LINE_AA, 4)
    view[:] = cv2.addWeighted(filled, _FRONT_OPACITY, view, 1 - _FRONT_OPACITY, 0)


def _legend(image: np.ndarray, entries: list[tuple[Style, int]]) -> None:
    """A line sample, the name and the number of objects of each group, in the lower left corner."""
    height = image.shape[0]
    for row, (style, number) in enumerate(reversed(entries)):
        y = height - 6 - 18 * row
        put_text(image, f"{style.name}s ({number})", (44, y + 4), style.colour, 0.45)
        cv2.line(image, (8, y - 4), (38, y - 4), style.colour, style.thickness, cv2.LINE_AA)
