"""3D boxes on an image, alone or beside the bird's-eye view.

Every function returns a new BGR image (H, W, 3) uint8 and leaves its input unchanged.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..structures import Calibration, Object3d
from .birds_eye import RANGE_M, draw_birds_eye
from .style import DETECTION_STYLE, LABEL_STYLE, Colour, Style, checked_copy, put_text, select_3d_boxes, text_area

NEAR_M = 0.1  # edges are clipped at this depth [m], since nothing behind the camera projects to a pixel
_FRONT_OPACITY = 0.25
# corner numbers as in Object3d.corners_cam: bottom 0..3 from front right, top 4..7 above them
_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FRONT_FACE = (0, 1, 5, 4)
_FRONT_CROSS = ((0, 5), (1, 4))
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
    image_bgr: np.ndarray, objects: Objects, calibration: Calibration, style: Style = DETECTION_STYLE, text: bool = True
) -> np.ndarray:
    """The edges of the 3D boxes, front faces tinted and crossed. DontCare is left out.

    ``text``: write class, depth and score, the nearest first; a text that would cover another one is left out.
    """
    image = checked_copy(image_bgr)
    texts: list[tuple[str, tuple[int, int]]] = []
    for item in sorted(select_3d_boxes(objects), key=lambda o: -o.location_cam[2]):
        corners = item.corners_cam()
        _tint_front(image, corners[list(_FRONT_FACE)], calibration, style.colour)
        for i, j in (*_EDGES, *_FRONT_CROSS):
            segment = clip_segment(corners[i], corners[j])
            if segment is not None:
                thickness = 1 if (i, j) in _FRONT_CROSS else style.thickness
                _draw_line(image, calibration.project(segment), style.colour, thickness)
        visible = corners[corners[:, 2] >= NEAR_M]
        if len(visible):
            pixels = np.clip(calibration.project(visible), -1e6, 1e6)
            left, top = pixels.min(axis=0).astype(int).tolist()
            if left < image.shape[1] and top < image.shape[0] and (pixels.max(axis=0) > 0).all():
                score = "" if item.score is None else f" {item.score:.2f}"
                texts.append((f"{item.type} {item.location_cam[2]:.1f}m{score}", (left, top - 2)))
    taken: list[tuple[int, int, int, int]] = []
    for words, corner in reversed(texts) if text else ():
        left, top, right, bottom = text_area(image, words, corner, style.text_scale)
        if all(left >= x2 or right <= x1 or top >= y2 or bottom <= y1 for x1, y1, x2, y2 in taken):
            put_text(image, words, corner, style.colour, style.text_scale)
            taken.append((left, top, right, bottom))
    return image


def draw_comparison(
    image_bgr: np.ndarray, calibration: Calibration, labels: Objects | None, detections: Objects | None
) -> np.ndarray:
    """The image with the 3D boxes of labels and detections, and to its right a square bird's-eye view of them.

    Labels are wide and orange; detections, drawn over them, thin and blue. A group that is None (the test split has
    no labels) is left out, also from the legend. Text is written at the detections, or at the labels if there are no
    detections. An image lower than 214 px is enlarged by a whole factor, so that its text stays readable.
    """
    image, calibration = _enlarged(image_bgr, calibration)
    both = ((labels, LABEL_STYLE), (detections, DETECTION_STYLE))
    groups = [(objects, style) for objects, style in both if objects is not None]
    for k, (objects, style) in enumerate(groups, 1):
        image = draw_boxes_3d(image, objects, calibration, style, text=k == len(groups))
    height, width = image.shape[:2]
    _draw_legend(image, [(style, len(select_3d_boxes(objects))) for objects, style in groups])
    view = draw_birds_eye(groups, (height, height), calibration, image_width=width)
    return np.concatenate([image, view], axis=1)


def draw_detections(
    image_bgr: np.ndarray, calibration: Calibration, detections: Objects, range_m: float = RANGE_M
) -> np.ndarray:
    """The image with the 3D boxes, and to its right, no wider than the image, the bird's-eye view up to ``range_m``.

    Small images are enlarged as in :func:`draw_comparison`. On images higher than 540 px lines and text grow with the
    height, so that they stay visible when the result is shown small.
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
    """A copy, by a whole factor to about 320 px of height, and the calibration of the copy."""
    factor = max(1, round(320 / image_bgr.shape[0]))
    image = checked_copy(image_bgr)
    if factor > 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        calibration = Calibration(calibration.P2 * np.array([[factor], [factor], [1.0]]))
    return image, calibration


def _draw_line(image: np.ndarray, ends_img: np.ndarray, colour: Colour, thickness: int) -> None:
    """A line between two pixels that may lie far outside the image."""
    height, width = image.shape[:2]
    (x1, y1), (x2, y2) = np.clip(ends_img, -1e7, 1e7).round().astype(int).tolist()
    visible, start, end = cv2.clipLine((-10, -10, width + 20, height + 20), (x1, y1), (x2, y2))  # with a margin
    if visible:
        cv2.line(image, start, end, colour, thickness, cv2.LINE_AA)


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


def _draw_legend(image: np.ndarray, entries: list[tuple[Style, int]]) -> None:
    """A line sample, the name and the number of objects of each group, at the lower left."""
    for row, (style, number) in enumerate(reversed(entries)):
        y = image.shape[0] - 6 - 18 * row
        put_text(image, f"{style.name}s ({number})", (44, y + 4), style.colour, 0.45)
        cv2.line(image, (8, y - 4), (38, y - 4), style.colour, style.thickness, cv2.LINE_AA)
