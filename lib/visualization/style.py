"""Colours, line widths and text that all images share."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..structures import Object3d

Colour = tuple[int, int, int]
"""BGR, 0..255"""


@dataclass(frozen=True, slots=True)
class Style:
    """How one group of objects is drawn."""

    name: str
    colour: Colour
    thickness: int
    """of the lines [px]"""
    text_scale: float = 0.4
    """of OpenCV's font; its capitals are 22 px high at 1"""


# Orange and sky blue of Okabe & Ito's palette: told apart with every kind of colour vision, and by width besides.
LABEL_STYLE = Style("label", (0, 159, 230), 2)
DETECTION_STYLE = Style("detection", (233, 180, 86), 1)
DONT_CARE_COLOUR: Colour = (150, 150, 150)

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def checked_copy(image_bgr: np.ndarray) -> np.ndarray:
    """A writable copy of an image; ValueError unless it is (H, W, 3) uint8."""
    if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8:
        raise ValueError(f"expected a BGR image (H, W, 3) uint8, got {image_bgr.shape} {image_bgr.dtype}")
    return np.array(image_bgr, order="C")


def describe(item: Object3d) -> str:
    """Class, distance and score: 'Car 23.4m 0.87'."""
    text = f"{item.type} {item.location_cam[2]:.1f}m"
    return text if item.score is None else f"{text} {item.score:.2f}"


def text_area(
    image_bgr: np.ndarray, text: str, corner: tuple[int, int], scale: float = 0.4
) -> tuple[int, int, int, int]:
    """Where :func:`put_text` would write: (left, top, right, bottom) [px], moved so that it stays inside."""
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    x = min(max(corner[0], 0), max(image_bgr.shape[1] - width - 2, 0))
    y = min(max(corner[1], height + below), image_bgr.shape[0] - 1)
    return x, max(y - height - below, 0), x + width + 2, y + 1


def put_text(image_bgr: np.ndarray, text: str, corner: tuple[int, int], colour: Colour, scale: float = 0.4) -> None:
    """Write on a darkened strip whose lower left corner is ``corner``, moved so that it stays inside; in place."""
    left, top, right, bottom = text_area(image_bgr, text, corner, scale)
    strip = image_bgr[top:bottom, left:right]
    strip[:] = strip // 3
    below = cv2.getTextSize(text, _FONT, scale, 1)[1]
    cv2.putText(image_bgr, text, (left + 1, bottom - 2 - below // 2), _FONT, scale, colour, 1, cv2.LINE_AA)
