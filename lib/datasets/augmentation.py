"""Flip and random crop as one immutable value, applied alike to image, labels' projections and depth map."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from ..ops.affine import ScaleShift, source_index, window_to_input
from ..ops.angles import wrap_angle
from ..structures import Object3d


class RandomSource(Protocol):
    """The two methods of ``numpy.random.Generator`` that are drawn from."""

    def random(self) -> float: ...

    def standard_normal(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to one image between the file and the network: a flip first, then a window is cut out."""

    image_size: tuple[int, int]
    """(width, height) of the original image [px]"""
    flip: bool
    """mirrored left to right"""
    crop: bool
    """whether the window was drawn at random; such samples train no 3D term"""
    window_scale: float
    """width of the window as a share of the image's; depths are multiplied by it"""
    window_center: tuple[float, float]
    """(x, y) [px], in the (flipped) image"""

    @classmethod
    def identity(cls, image_size: tuple[int, int]) -> Augmentation:
        """The whole image, as at validation."""
        width, height = image_size
        return cls(image_size, flip=False, crop=False, window_scale=1.0, window_center=(width / 2, height / 2))

    @classmethod
    def sample(
        cls,
        rng: RandomSource,
        image_size: tuple[int, int],
        random_flip: float,
        random_crop: float,
        scale: float,
        shift: float,
    ) -> Augmentation:
        """Draw as the official code does: flip, crop; and only if cropped the window's scale, x and y."""
        width, height = image_size
        flip = rng.random() < random_flip
        if not rng.random() < random_crop:
            return replace(cls.identity(image_size), flip=flip)
        window_scale = _clip(1 + rng.standard_normal() * scale, 1 - scale, 1 + scale)
        x = width / 2 + width * _clip(rng.standard_normal() * shift, -2 * shift, 2 * shift)
        y = height / 2 + height * _clip(rng.standard_normal() * shift, -2 * shift, 2 * shift)
        return cls(image_size, flip, crop=True, window_scale=window_scale, window_center=(x, y))

    def to_input(self, resolution: tuple[int, int]) -> ScaleShift:
        """The map from the (flipped) image to the network input of ``resolution`` (width, height)."""
        return window_to_input(self.window_center, self.image_size[0] * self.window_scale, resolution)

    def points(self, points_img: np.ndarray) -> np.ndarray:
        """(N, 2) [px of the original image] -> the same points of the (flipped) image."""
        points_img = np.array(points_img, dtype=np.float64)
        if self.flip:
            points_img[:, 0] = self.image_size[0] - points_img[:, 0]
        return points_img

    def object3d(self, obj: Object3d) -> Object3d:
        """Mirror what the image shows of a label: 2D box, alpha and rotation_y. Its location stays.

        A mirrored location would need a mirrored P2; the official code mirrors projections instead (:meth:`points`).
        """
        if not self.flip:
            return obj
        x1, y1, x2, y2 = obj.bbox_img
        width = self.image_size[0]
        return replace(
            obj,
            bbox_img=(width - x2, y1, width - x1, y2),
            alpha=wrap_angle(math.pi - obj.alpha),
            rotation_y=wrap_angle(math.pi - obj.rotation_y),
        )

    def image(self, image: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
        """(H, W, 3) uint8 -> network input (h, w, 3) uint8, bilinear, black outside the image."""
        to_input = self.to_input(resolution)
        inverse = np.zeros((2, 3))
        # cv2 counts from pixel centres, ScaleShift from pixel corners
        inverse[0] = 1 / to_input.scale, 0, (0.5 - to_input.shift_x) / to_input.scale - 0.5
        inverse[1] = 0, 1 / to_input.scale, (0.5 - to_input.shift_y) / to_input.scale - 0.5
        if self.flip:
            inverse[0] = -inverse[0]
            inverse[0, 2] += image.shape[1] - 1
        # OpenCV warps four channels in less than half of the time that it takes for three, to the same values
        four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        four = cv2.warpAffine(four, inverse, resolution, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)

    def depth_map(self, depth_map: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
        """(H, W) float32 [m] -> (h, w) float32 at network resolution, nearest neighbour; all 0 for a cropped sample.

        The official code has no map for cropped samples: their depths no longer fit the focal length.
        """
        width, height = resolution
        if self.crop:
            return np.zeros((height, width), np.float32)
        to_input = self.to_input(resolution)
        columns, inside_x = source_index(width, to_input.scale, to_input.shift_x, depth_map.shape[1])
        rows, inside_y = source_index(height, to_input.scale, to_input.shift_y, depth_map.shape[0])
        if self.flip:
            columns = depth_map.shape[1] - 1 - columns
        warped = depth_map[rows][:, columns]
        warped[~inside_y] = 0
        warped[:, ~inside_x] = 0
        return warped

    def depth_map_at_cells(self, depth_map: np.ndarray, resolution: tuple[int, int], stride: int) -> np.ndarray:
        """(H, W) float32 [m] -> (h / stride, w / stride) float32: :meth:`depth_map`, resized with aligned corners.

        The resizing (the official code does it in the loss) looks at four pixels a cell; only those are read.
        """
        width, height = resolution
        cells_x, cells_y = width // stride, height // stride
        if self.crop:
            return np.zeros((cells_y, cells_x), np.float32)
        to_input = self.to_input(resolution)
        near_x, weight_x = _aligned_corners(width, cells_x)
        near_y, weight_y = _aligned_corners(height, cells_y)
        # near pixels first, then their right or lower neighbours; the last one's has weight 0
        taken_x = np.concatenate([near_x, np.minimum(near_x + 1, width - 1)])
        taken_y = np.concatenate([near_y, np.minimum(near_y + 1, height - 1)])
        columns, inside_x = source_index(width, to_input.scale, to_input.shift_x, depth_map.shape[1])
        rows, inside_y = source_index(height, to_input.scale, to_input.shift_y, depth_map.shape[0])
        if self.flip:
            columns = depth_map.shape[1] - 1 - columns
        # rows first: where the map is on the disk, only they are read
        pixels = depth_map.take(rows[taken_y], axis=0).take(columns[taken_x], axis=1)
        pixels[~inside_y[taken_y]] = 0
        pixels[:, ~inside_x[taken_x]] = 0
        across = pixels[:, :cells_x] * (1 - weight_x) + pixels[:, cells_x:] * weight_x
        down = weight_y[:, None]
        return across[:cells_y] * (1 - down) + across[cells_y:] * down


def _aligned_corners(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell the pixel at or before its place on the axis, and the weight of the next one (float32)."""
    place = np.arange(cells, dtype=np.float32) * np.float32((size - 1) / max(cells - 1, 1))
    near = np.minimum(place.astype(np.int64), size - 1)
    return near, place - near.astype(np.float32)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
