"""Flip and random crop of a sample as one immutable value, applied to image, labels and depth map alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..ops.affine import ScaleShift, source_index, window_to_input
from ..ops.angles import wrap_angle
from ..structures import Object3d


@dataclass(frozen=True, slots=True)
class Augmentation:
    """From the original image to the network input: an optional flip, then a window is cut out and scaled."""

    image_size: tuple[int, int]  # (width, height) of the original image [px]
    flip: bool  # left to right
    crop: bool  # the window was drawn at random; such samples train the heatmap, 2D and heading losses only
    window_scale: float  # window width / image width; depths are multiplied by it
    window_center: tuple[float, float]  # (x, y) [px], in the (flipped) image

    @classmethod
    def identity(cls, image_size: tuple[int, int]) -> Augmentation:
        """The whole image, as at validation."""
        width, height = image_size
        return cls(image_size, flip=False, crop=False, window_scale=1.0, window_center=(width / 2, height / 2))

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        image_size: tuple[int, int],
        random_flip: float,
        random_crop: float,
        scale: float,
        shift: float,
    ) -> Augmentation:
        """Draw in the official code's order: flip, crop; if cropped, the window's scale, x and y."""
        width, height = image_size
        flip = rng.random() < random_flip
        if not rng.random() < random_crop:
            return replace(cls.identity(image_size), flip=flip)
        window_scale = float(np.clip(1 + rng.standard_normal() * scale, 1 - scale, 1 + scale))
        x = width / 2 + width * float(np.clip(rng.standard_normal() * shift, -2 * shift, 2 * shift))
        y = height / 2 + height * float(np.clip(rng.standard_normal() * shift, -2 * shift, 2 * shift))
        return cls(image_size, flip, crop=True, window_scale=window_scale, window_center=(x, y))

    def to_input(self, resolution: tuple[int, int]) -> ScaleShift:
        """The map from the (flipped) image to a network input of ``resolution`` (width, height)."""
        return window_to_input(self.window_center, self.image_size[0] * self.window_scale, resolution)

    def points(self, points_img: np.ndarray) -> np.ndarray:
        """Points (N, 2) [px] of the original image -> the same points in the (flipped) image."""
        points_img = np.array(points_img, dtype=np.float64)
        if self.flip:
            points_img[:, 0] = self.image_size[0] - points_img[:, 0]
        return points_img

    def object3d(self, obj: Object3d) -> Object3d:
        """The label with its 2D box, alpha and rotation_y flipped, but not its location.

        A flipped location would need a flipped P2; as in the official code, projections are flipped (:meth:`points`).
        """
        if not self.flip:
            return obj
        x1, y1, x2, y2 = obj.bbox_img
        width = self.image_size[0]
        alpha, rotation_y = wrap_angle(math.pi - obj.alpha), wrap_angle(math.pi - obj.rotation_y)
        return replace(obj, bbox_img=(width - x2, y1, width - x1, y2), alpha=alpha, rotation_y=rotation_y)

    def image(self, image: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
        """(H, W, 3) uint8 -> network input (h, w, 3) uint8, bilinear, black outside the image.

        As PIL's affine transform, which the official code uses: values are truncated, not rounded, and no black is
        mixed in at the border of the image.
        """
        to_input = self.to_input(resolution)
        scale, (shift_x, shift_y) = to_input.scale, (to_input.shift_x, to_input.shift_y)
        # the origin is a pixel's centre in OpenCV, a pixel's corner in ScaleShift
        offset_x, offset_y = (0.5 - shift_x) / scale - 0.5, (0.5 - shift_y) / scale - 0.5
        inverse = np.array([[1 / scale, 0, offset_x], [0, 1 / scale, offset_y]])
        # OpenCV rounds uint8. It warps four channels faster than three (tools/bench/samples.py), and flips faster too.
        four = cv2.cvtColor(cv2.flip(image, 1) if self.flip else image, cv2.COLOR_RGB2RGBA).astype(np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(four, inverse, resolution, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        warped = cv2.cvtColor(warped.astype(np.uint8), cv2.COLOR_RGBA2RGB)
        warped[~source_index(resolution[1], scale, shift_y, image.shape[0])[1]] = 0
        warped[:, ~source_index(resolution[0], scale, shift_x, image.shape[1])[1]] = 0
        return warped

    def depth_map(self, depth_map: np.ndarray, resolution: tuple[int, int], stride: int) -> np.ndarray:
        """Depth map (H, W) float32 [m] -> (h / stride, w / stride) float32, for a network input of (w, h).

        The official code warps the map to the network input, nearest neighbour, and resizes it in the loss, bilinear
        with aligned corners. Here only the pixels that the resizing needs are read, at most four for each cell.
        Cropped samples get zeros, as in the official code: their depths do not fit the focal length.
        """
        width, height = resolution
        width_map, height_map = width // stride, height // stride
        if self.crop:
            return np.zeros((height_map, width_map), np.float32)
        to_input = self.to_input(resolution)
        x0_net, weight_x = _aligned_corners(width, width_map)
        y0_net, weight_y = _aligned_corners(height, height_map)
        # first the left or upper neighbours of all cells, then the right or lower ones; the last one has weight 0
        x_net = np.concatenate([x0_net, np.minimum(x0_net + 1, width - 1)])
        y_net = np.concatenate([y0_net, np.minimum(y0_net + 1, height - 1)])
        columns, inside_x = source_index(width, to_input.scale, to_input.shift_x, depth_map.shape[1])
        rows, inside_y = source_index(height, to_input.scale, to_input.shift_y, depth_map.shape[0])
        if self.flip:
            columns = depth_map.shape[1] - 1 - columns
        # rows first: of a memory-mapped file only these are read
        pixels = depth_map.take(rows[y_net], axis=0).take(columns[x_net], axis=1)
        pixels[~inside_y[y_net]] = 0
        pixels[:, ~inside_x[x_net]] = 0
        across = pixels[:, :width_map] * (1 - weight_x) + pixels[:, width_map:] * weight_x
        down = weight_y[:, None]
        return across[:height_map] * (1 - down) + across[height_map:] * down


def _aligned_corners(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell the pixel at or before its position on the axis, and the weight of the next pixel (float32)."""
    position = np.arange(cells, dtype=np.float32) * np.float32((size - 1) / max(cells - 1, 1))
    before = np.minimum(position.astype(np.int64), size - 1)
    return before, position - before.astype(np.float32)
