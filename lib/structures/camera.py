"""An image with its camera, cameras without a calibration file, and the focal length at the network input's size."""

import math
from dataclasses import dataclass

import numpy as np

from ..ops.affine import SAME_RATIO, ratio_difference
from .calibration import Calibration

KITTI_P2 = ((721.5377, 0.0, 609.5593, 44.85728), (0.0, 721.5377, 172.854, 0.2163791), (0.0, 0.0, 1.0, 0.002745884))
KITTI_SIZE = (1242, 375)  # (width, height) [px]; both are those of 6057 of KITTI's 7481 training frames


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """The properties of an image that decoding needs. They are part of the batch."""

    frame_id: str
    image_size: tuple[int, int]  # (width, height) of the original image [px]
    calibration: Calibration
    depth_scale: float = 1.0  # factor of the network's depths: 1 for a camera like that of the training images


def focal_net(calibration: Calibration, image_width: int, input_width: int) -> float:
    """Horizontal focal length [px] of an image that is scaled to the network's ``input_width``."""
    return calibration.fu * input_width / image_width


def camera_from_intrinsics(
    image_size: tuple[int, int], fx: float, fy: float | None = None, cx: float | None = None, cy: float | None = None
) -> Calibration:
    """A camera without distortion; all arguments in pixels, ``image_size`` is (width, height).

    ``fy`` defaults to ``fx``, the principal point to the image's centre. Raises ValueError for focal lengths below
    1 px and for values that are not finite.
    """
    fy = fx if fy is None else fy
    center = (image_size[0] / 2 if cx is None else cx, image_size[1] / 2 if cy is None else cy)
    for name, value in (("fx", fx), ("fy", fy), ("cx", center[0]), ("cy", center[1])):
        focal = name in ("fx", "fy")
        if not math.isfinite(value) or (focal and value < 1):
            raise ValueError(f"{name} must be a number of pixels{', at least 1' if focal else ''}, got {value:g}")
    return Calibration(np.array([[fx, 0, center[0], 0], [0, fy, center[1], 0], [0, 0, 1, 0]]))


def assumed_kitti_camera(image_size: tuple[int, int]) -> Calibration:
    """The camera of an image with KITTI's horizontal field of view.

    For an image with KITTI's aspect ratio (within 3 %) it is KITTI's P2, scaled. For any other the principal point is
    the image's centre and not KITTI's, which lies above the middle.
    """
    scale = image_size[0] / KITTI_SIZE[0]
    if ratio_difference(image_size, KITTI_SIZE) <= SAME_RATIO:
        return Calibration(np.array(KITTI_P2) * np.array([[scale], [scale], [1.0]]))
    return camera_from_intrinsics(image_size, KITTI_P2[0][0] * scale)
