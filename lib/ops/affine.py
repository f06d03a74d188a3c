"""The geometric map from an image to the network input: one scale for both axes, and a shift.

Pixel coordinates are continuous, as in PIL: the pixel in row i and column j covers x in [j, j + 1), y in [i, i + 1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

STRIDE = 4  # pixels of the network input per cell of the network's maps
INPUT_MULTIPLE = 32  # both sides of a network input are multiples of the backbone's largest stride [px]
SAME_RATIO = 0.03  # largest relative difference of two ratios width / height of images that count as equally shaped


@dataclass(frozen=True, slots=True)
class ScaleShift:
    """``net = scale * img + shift`` for x and y alike."""

    scale: float
    shift_x: float
    shift_y: float

    def apply(self, points_img: np.ndarray) -> np.ndarray:
        """(..., 2) [px of the image] -> (..., 2) [px of the network input]."""
        return np.asarray(points_img, dtype=np.float64) * self.scale + (self.shift_x, self.shift_y)


def window_to_input(center_img: tuple[float, float], window_width: float, resolution: tuple[int, int]) -> ScaleShift:
    """The map of ``center_img`` to the centre of the input, and of ``window_width`` [px] to its width.

    CenterNet's affine map without rotation, as in the published code: the height of the window is not used.
    """
    width, height = resolution
    scale = width / window_width
    return ScaleShift(scale, width / 2 - scale * center_img[0], height / 2 - scale * center_img[1])


def resolution_for(image_size: tuple[int, int], configured: tuple[int, int]) -> tuple[int, int]:
    """The network input (width, height) that contains a whole image of ``image_size`` at the configured width.

    Where the ratio width / height is within 3 % of the configured one, as for KITTI's images, this is the configured
    resolution, as in training, and a few rows may be cut off. Else the height is the smallest multiple of 32 that
    contains all rows.
    """
    (width, height), (net_width, net_height) = image_size, configured
    if ratio_difference(image_size, configured) <= SAME_RATIO:
        return net_width, net_height
    return net_width, -(-net_width * height // (width * INPUT_MULTIPLE)) * INPUT_MULTIPLE


def official_map_fits(image_width: Any, image_height: Any, resolution: Any) -> Any:
    """Whether the ratio of the heights maps rows of the input (width, height) back to an image within 1 %.

    Numbers or tensors of whole numbers, for which float32 (ONNX) and float64 give the same answer. KITTI's images
    differ from 1280 x 384 by at most 0.98 %.
    """
    across, down = image_width * resolution[1], image_height * resolution[0]
    return abs(across - down) * 100 <= down


def share_outside(image_size: tuple[int, int], resolution: tuple[int, int]) -> float:
    """Share of an image's rows that lie above or below a network input (width, height)."""
    return max(0.0, 1 - image_size[0] * resolution[1] / (image_size[1] * resolution[0]))


def ratio_difference(size: tuple[int, int], other: tuple[int, int]) -> float:
    """Relative difference between the ratios width / height of two sizes."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1)


def source_index(size_net: int, scale: float, shift: float, size_img: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbour along one axis: for each output pixel the source pixel, and whether it is inside the image.

    The source pixel is the one that contains the output pixel's centre, as in PIL's affine transform with NEAREST.
    """
    source = np.floor((np.arange(size_net) + 0.5 - shift) / scale).astype(np.int64)
    inside = (source >= 0) & (source < size_img)
    return np.clip(source, 0, size_img - 1), inside
