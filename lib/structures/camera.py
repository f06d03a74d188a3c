"""Cameras that no calibration file describes, and what a camera's focal length means to the network."""

from __future__ import annotations

import math

import numpy as np

from ..ops.affine import ratio_difference
from .calibration import Calibration

KITTI_P2 = ((721.5377, 0.0, 609.5593, 44.85728), (0.0, 721.5377, 172.854, 0.2163791), (0.0, 0.0, 1.0, 0.002745884))
KITTI_SIZE = (1242, 375)
"""the camera of four fifths of KITTI's images, and their size (width, height) [px]"""
_KITTI_RATIO_SLACK = 0.03


def focal_net(calibration: Calibration, image_width: int, input_width: int) -> float:
    """Horizontal focal length [px] of an image that is scaled to the network's ``input_width``."""
    return calibration.fu * input_width / image_width


def camera_from_intrinsics(
    image_size: tuple[int, int], fx: float, fy: float | None = None, cx: float | None = None, cy: float | None = None
) -> Calibration:
    """A camera without distortion, all in pixels of an image of ``image_size`` (width, height).

    ``fy`` defaults to ``fx``, the principal point to the image's centre. Raises ValueError for focal lengths that
    are not positive and for what is not finite.
    """
    fy = fx if fy is None else fy
    center = (image_size[0] / 2 if cx is None else cx, image_size[1] / 2 if cy is None else cy)
    for name, value in (("fx", fx), ("fy", fy)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number of pixels, got {value:g}")
    for name, value in (("cx", center[0]), ("cy", center[1])):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a number of pixels, got {value:g}")
    return Calibration(np.array([[fx, 0, center[0], 0], [0, fy, center[1], 0], [0, 0, 1, 0]]))


def assumed_kitti_camera(image_size: tuple[int, int]) -> Calibration:
    """The camera that an image would have if it showed as wide an angle as KITTI's.

    Where the image also has KITTI's ratio (within 3 %) it is KITTI's P2, scaled. Any other one is no cut-out of
    KITTI's, whose principal point lies above the middle; the image's centre is then the better guess.
    """
    scale = image_size[0] / KITTI_SIZE[0]
    if ratio_difference(image_size, KITTI_SIZE) <= _KITTI_RATIO_SLACK:
        return Calibration(np.array(KITTI_P2) * np.array([[scale], [scale], [1.0]]))
    return camera_from_intrinsics(image_size, KITTI_P2[0][0] * scale)
