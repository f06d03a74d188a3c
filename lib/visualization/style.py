"""What all images share: colours, line widths, text, and their form as a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import cv2
import numpy as np

from ..structures import Object3d

Colour = tuple[int, int, int]  # RGB, 0..255


@dataclass(frozen=True, slots=True)
class Style:
    """How one group of objects is drawn, each in the colour of its class."""

    name: str
    dashed: bool
    thickness: int  # of the lines [px]
    text_scale: float = 0.4  # of OpenCV's font; its capitals are 22 px high at 1


LABEL_STYLE = Style("label", True, 1)
DETECTION_STYLE = Style("detection", False, 2)

# Okabe and Ito's palette, which every kind of colour vision tells apart, without black and its dark blue
ORANGE, SKY_BLUE, GREEN, YELLOW = (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)
VERMILION, PURPLE = (213, 94, 0), (204, 121, 167)
CLASS_COLOURS: dict[str, Colour] = {"Car": ORANGE, "Pedestrian": SKY_BLUE, "Cyclist": GREEN, "Van": YELLOW}
CLASS_COLOURS |= {"Truck": PURPLE, "Tram": VERMILION}
"""by class; see :func:`class_colour` for all others"""

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(name: str) -> Colour:
    """The colour of a class, the same in every image. Classes beyond ``CLASS_COLOURS`` share its colours."""
    colours = list(CLASS_COLOURS.values())
    return CLASS_COLOURS.get(name, colours[crc32(name.encode()) % len(colours)])


def checked_copy(image_rgb: np.ndarray) -> np.ndarray:
    """A writable copy of an image; ValueError unless it is (H, W, 3) uint8."""
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(f"expected an RGB image (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}")
    return np.array(image_rgb, order="C")


def select_3d_boxes(objects: Sequence[Object3d]) -> list[Object3d]:
    """The objects with a 3D box: not DontCare, and all values finite."""
    cared = (item for item in objects if item.type != "DontCare")
    return [item for item in cared if np.isfinite([*item.dimensions, *item.location_cam, item.rotation_y]).all()]


def draw_line(image_rgb: np.ndarray, ends: np.ndarray, colour: Colour, thickness: int, dashed: bool = False) -> None:
    """A line between two points (2, 2) [px], which may lie far outside the image, in place."""
    height, width = image_rgb.shape[:2]
    first, second = np.clip(np.asarray(ends) * 16, -1e9, 1e9).round().astype(int).tolist()  # in 1/16 px
    outside = (-160, -160, 16 * width + 320, 16 * height + 320)  # 10 px beyond the image
    visible, start, end = cv2.clipLine(outside, first, second)
    if not visible:
        return
    a, b = np.array(start), np.array(end)
    dashes = max(2, round(np.linalg.norm(b - a) / 16 / (4 + 4 * thickness))) if dashed else 1
    steps = np.linspace(0, 1, 2 * dashes)[:, None]
    for first, second in (a + steps * (b - a)).round().astype(int).reshape(dashes, 2, 2).tolist():
        cv2.line(image_rgb, first, second, colour, thickness, cv2.LINE_AA, 4)


def text_area(image_rgb: np.ndarray, text: str, corner: tuple[int, int], scale: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) [px] of the strip that :func:`put_text` covers: moved to lie inside the image."""
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    x = min(max(corner[0], 0), max(image_rgb.shape[1] - width - 2, 0))
    y = min(max(corner[1], height + below), image_rgb.shape[0] - 1)
    return x, max(y - height - below, 0), x + width + 2, y + 1


def put_text(image_rgb: np.ndarray, text: str, corner: tuple[int, int], colour: Colour, scale: float = 0.4) -> None:
    """Write text in place, on a darkened strip whose lower left corner is ``corner``, moved to lie inside."""
    left, top, right, bottom = text_area(image_rgb, text, corner, scale)
    strip = image_rgb[top:bottom, left:right]
    strip[:] = strip // 3
    below = cv2.getTextSize(text, _FONT, scale, 1)[1]
    cv2.putText(image_rgb, text, (left + 1, bottom - 2 - below // 2), _FONT, scale, colour, 1, cv2.LINE_AA)


def encode_image(image_rgb: np.ndarray, suffix: str = ".png", max_width: int | None = None) -> bytes:
    """The content of an image file. ``suffix``: '.png' or '.jpg'. A wider image is shrunk to ``max_width`` [px]."""
    height, width = image_rgb.shape[:2]
    if max_width and width > max_width:
        size = (max_width, round(height * max_width / width))
        image_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
    image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)  # the order of OpenCV's files
    options = [cv2.IMWRITE_JPEG_QUALITY, 85] if suffix == ".jpg" else []
    return cv2.imencode(suffix, image_bgr, options)[1].tobytes()
