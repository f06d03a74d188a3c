"""What all images share: colours, line widths, text, and their form as a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..structures import Object3d

Colour = tuple[int, int, int]  # BGR, 0..255


@dataclass(frozen=True, slots=True)
class Style:
    """How one group of objects is drawn."""

    name: str
    colour: Colour
    thickness: int  # of the lines [px]
    text_scale: float = 0.4  # of OpenCV's font; its capitals are 22 px high at 1


# Orange and sky blue of Okabe and Ito's palette, for every kind of colour vision; the lines differ in width too.
LABEL_STYLE = Style("label", (0, 159, 230), 2)
DETECTION_STYLE = Style("detection", (233, 180, 86), 1)

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def checked_copy(image_bgr: np.ndarray) -> np.ndarray:
    """A writable copy of an image; ValueError unless it is (H, W, 3) uint8."""
    if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8:
        raise ValueError(f"expected a BGR image (H, W, 3) uint8, got {image_bgr.shape} {image_bgr.dtype}")
    return np.array(image_bgr, order="C")


def select_3d_boxes(objects: Sequence[Object3d]) -> list[Object3d]:
    """The objects with a 3D box: not DontCare, and all values finite."""
    cared = (item for item in objects if item.type != "DontCare")
    return [item for item in cared if np.isfinite([*item.dimensions, *item.location_cam, item.rotation_y]).all()]


def text_area(image_bgr: np.ndarray, text: str, corner: tuple[int, int], scale: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) [px] of the strip that :func:`put_text` covers: moved to lie inside the image."""
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    x = min(max(corner[0], 0), max(image_bgr.shape[1] - width - 2, 0))
    y = min(max(corner[1], height + below), image_bgr.shape[0] - 1)
    return x, max(y - height - below, 0), x + width + 2, y + 1


def put_text(image_bgr: np.ndarray, text: str, corner: tuple[int, int], colour: Colour, scale: float = 0.4) -> None:
    """Write text in place, on a darkened strip whose lower left corner is ``corner``, moved to lie inside."""
    left, top, right, bottom = text_area(image_bgr, text, corner, scale)
    strip = image_bgr[top:bottom, left:right]
    strip[:] = strip // 3
    below = cv2.getTextSize(text, _FONT, scale, 1)[1]
    cv2.putText(image_bgr, text, (left + 1, bottom - 2 - below // 2), _FONT, scale, colour, 1, cv2.LINE_AA)


def encode_image(image_bgr: np.ndarray, suffix: str = ".png", max_width: int | None = None) -> bytes:
    """The content of an image file. ``suffix``: '.png' or '.jpg'. A wider image is shrunk to ``max_width`` [px]."""
    height, width = image_bgr.shape[:2]
    if max_width and width > max_width:
        size = (max_width, round(height * max_width / width))
        image_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, 85] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image_bgr, options)[1].tobytes()
