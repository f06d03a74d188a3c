"""The one geometric map from an image to the network's input: a scale for both axes and a shift.

Pixel coordinates are continuous: pixel (i, j) covers [j, j + 1) x [i, i + 1), its centre is at + 0.5, as in PIL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INPUT_MULTIPLE = 32
"""both sides of a network input are multiples of the backbone's largest stride [px]"""
_SAME_RATIO = 0.03


@dataclass(frozen=True, slots=True)
class ScaleShift:
    """``net = scale * img + shift`` for x and y alike."""

    scale: float
    shift_x: float
    shift_y: float

    def apply(self, points_img: np.ndarray) -> np.ndarray:
        """(..., 2) [px of the image] -> (..., 2) [px of the network input]."""
        return np.asarray(points_img, dtype=np.float64) * self.scale + (self.shift_x, self.shift_y)


def window_to_input(
    center_img: tuple[float, float], window_width: float, resolution: tuple[int, int]
) -> ScaleShift:
    """The map that brings ``center_img`` to the input's centre and ``window_width`` [px] to its whole width.

    CenterNet's affine without rotation, as the official code uses it: the window's height is not looked at.
    """
    width, height = resolution
    scale = width / window_width
    return ScaleShift(scale, width / 2 - scale * center_img[0], height / 2 - scale * center_img[1])


def resolution_for(image_size: tuple[int, int], configured: tuple[int, int]) -> tuple[int, int]:
    """The network input (width, height) that shows a whole image of ``image_size`` at the configured width.

    An image of nearly the configured ratio, such as KITTI's, keeps the configured resolution, as in training; a few
    of its rows may then be cut off. Any other gets the height, a multiple of 32, that all its rows fit into.
    """
    (width, height), (net_width, net_height) = image_size, configured
    if ratio_difference(image_size, configured) <= _SAME_RATIO:
        return net_width, net_height
    return net_width, -(-net_width * height // (width * INPUT_MULTIPLE)) * INPUT_MULTIPLE


def ratio_difference(size: tuple[int, int], other: tuple[int, int]) -> float:
    """By which share the ratio width / height of one size differs from another's."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1)


def source_index(size_net: int, scale: float, shift: float, size_img: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbour along one axis: for each output pixel the source pixel, and whether that exists.

    Output centres are mapped back and cut to the pixel that holds them, as PIL's affine does with NEAREST.
    """
    source = np.floor((np.arange(size_net) + 0.5 - shift) / scale).astype(np.int64)
    inside = (source >= 0) & (source < size_img)
    return np.clip(source, 0, size_img - 1), inside
