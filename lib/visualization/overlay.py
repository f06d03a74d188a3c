"""Maps over an image: heatmaps, and object-wise depth maps with a scale.

Every function returns a new RGB image (H, W, 3) uint8 and leaves its input unchanged.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from ..structures import MAX_DEPTH, MIN_DEPTH
from .style import Colour, checked_copy, class_colour, put_text

_HEATMAP_POWER = 0.7  # below 1, so that small values are seen too
_HEATMAP_BACKGROUND = 0.4  # brightness of the grey image below a heatmap
_DEPTH_OPACITY = 0.6
_TEXT_COLOUR: Colour = (255, 255, 255)


def draw_heatmap(
    image_rgb: np.ndarray, heatmap: np.ndarray, class_names: Sequence[str], map_to_img: np.ndarray
) -> np.ndarray:
    """The heatmap of each class in its colour, over the image in dark grey; names and highest values as text.

    The opacity is a power of the value.

    ``heatmap``: (C, h, w), 0..1, one channel for each of ``class_names``; ValueError for another shape. ``map_to_img``:
    (2, 3) affine transform of continuous coordinates (0 at the corner of the first cell or pixel) to the image.
    """
    image = checked_copy(image_rgb)
    if heatmap.ndim != 3 or len(heatmap) != len(class_names):
        raise ValueError(f"expected a heatmap ({len(class_names)}, h, w) for {list(class_names)}, got {heatmap.shape}")
    height, width = image.shape[:2]
    colours = [class_colour(name) for name in class_names]
    matrix = np.array(map_to_img, dtype=np.float64)
    # to OpenCV's coordinates, which are 0 at the centre of the first cell or pixel
    matrix[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed = _HEATMAP_BACKGROUND * grey.astype(np.float32)
    for channel, colour in zip(heatmap.astype(np.float32), colours, strict=True):
        opacity = cv2.warpAffine(channel, matrix, (width, height), flags=cv2.INTER_LINEAR).clip(0, 1) ** _HEATMAP_POWER
        mixed += opacity[..., None] * (np.array(colour, np.float32) - mixed)
    image = mixed.round().astype(np.uint8)
    for row, (name, channel, colour) in enumerate(zip(class_names, heatmap, colours, strict=True), 1 - len(heatmap)):
        put_text(image, f"{name}, at most {channel.max():.2f}", (6, height - 6 + 16 * row), colour)
    return image


def draw_object_depth(image_rgb: np.ndarray, depth_map: np.ndarray) -> np.ndarray:
    """An object-wise depth map over its image, near bright and far dark, with a scale in metres.

    ``depth_map``: (H, W) [m], 0 where there is no object; ValueError if its size is not the image's.
    """
    image = checked_copy(image_rgb)
    if depth_map.shape != image.shape[:2]:
        raise ValueError(f"the depth map is {depth_map.shape}, its image {image.shape[:2]}")
    painted = depth_map > 0
    blended = cv2.addWeighted(_depth_colours(depth_map), _DEPTH_OPACITY, image, 1 - _DEPTH_OPACITY, 0)
    image[painted] = blended[painted]
    _draw_scale(image)
    return image


def _depth_colours(depth: np.ndarray) -> np.ndarray:
    """Viridis over the logarithm of depth, from yellow at 2 m to dark blue at 65 m."""
    share = np.log(np.clip(depth, MIN_DEPTH, MAX_DEPTH) / MIN_DEPTH) / np.log(MAX_DEPTH / MIN_DEPTH)
    colours_bgr = cv2.applyColorMap((255 - 255 * share).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return cv2.cvtColor(colours_bgr, cv2.COLOR_BGR2RGB)


def _draw_scale(image: np.ndarray) -> None:
    """Draw a colour bar with marked depths at the lower left, in place."""
    height, width = image.shape[:2]
    length, left, bottom = min(240, width - 60), 8, height - 22
    if length < 60 or bottom < 20:
        return
    depths = MIN_DEPTH * (MAX_DEPTH / MIN_DEPTH) ** (np.arange(length) / (length - 1))
    image[bottom - 8 : bottom, left : left + length] = _depth_colours(depths[None])
    for mark in (2, 5, 10, 20, 40):
        x = left + round((length - 1) * np.log(mark / MIN_DEPTH) / np.log(MAX_DEPTH / MIN_DEPTH))
        cv2.line(image, (x, bottom - 8), (x, bottom), _TEXT_COLOUR, 1)
        put_text(image, f"{mark} m", (x, bottom + 16), _TEXT_COLOUR, 0.35)
