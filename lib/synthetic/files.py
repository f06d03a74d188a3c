"""KITTI's files: calibration text, atomic writing, split lists."""

from __future__ import annotations

import cv2
import numpy as np

from ..structures import Calibration, Object3d

NATIVE_SIZE = (1242, 375)
"""(width, height) [px] that KITTI_P2 belongs to"""
_NATIVE_SIZES = {721.5377: (1242, 375), 707.0493: (1224, 370), 718.3351: (1238, 374), 718.856: (1241, 376)}
"""KITTI's four cameras, known by their focal length [px]"""

# training/calib/000010.txt of KITTI; 6057 of its 7481 training frames carry these projections
_CALIBRATION = {
    "P0": (721.5377, 0.0, 609.5593, 0.0, 0.0, 721.5377, 172.8540, 0.0, 0.0, 0.0, 1.0, 0.0),
    "P1": (721.5377, 0.0, 609.5593, -387.5744, 0.0, 721.5377, 172.8540, 0.0, 0.0, 0.0, 1.0, 0.0),
    "P2": (721.5377, 0.0, 609.5593, 44.85728, 0.0, 721.5377, 172.8540, 0.2163791, 0.0, 0.0, 1.0, 0.002745884),
    "P3": (721.5377, 0.0, 609.5593, -339.5242, 0.0, 721.5377, 172.8540, 2.199936, 0.0, 0.0, 1.0, 0.002729905),
    "R0_rect": (
        *(0.9999239, 0.00983776, -0.007445048),
        *(-0.009869795, 0.9999421, -0.004278459),
        *(0.007402527, 0.004351614, 0.9999631),
    ),
    "Tr_velo_to_cam": (
        *(0.007533745, -0.9999714, -0.000616602, -0.004069766),
        *(0.01480249, 0.0007280733, -0.9998902, -0.07631618),
        *(0.9998621, 0.00752379, 0.01480755, -0.2717806),
    ),
    "Tr_imu_to_velo": (
        *(0.9999976, 0.0007553071, -0.002035826, -0.8086759),
        *(-0.0007854027, 0.9998898, -0.01482298, 0.3195559),
        *(0.002024406, 0.01482454, 0.9998881, -0.7997231),
    ),
}
KITTI_P2 = np.array(_CALIBRATION["P2"]).reshape(3, 4)


def native_size(calibration: Calibration) -> tuple[int, int]:
    """The image size (width, height) of the KITTI camera with this focal length; the commonest one if unknown."""
    for focal, size in _NATIVE_SIZES.items():
        if abs(calibration.fu - focal) < 0.01:
            return size
    return NATIVE_SIZE


def scale_P2(P2: np.ndarray, size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """P2 (3, 4) of the same camera with its image resized from ``size`` to ``new_size`` (width, height)."""
    factors = np.array([[new_size[0] / size[0]], [new_size[1] / size[1]], [1.0]])
    return np.asarray(P2, dtype=np.float64) * factors


def calibration_text(P2: np.ndarray, size: tuple[int, int]) -> str:
    """A whole KITTI calibration file, all seven keys, around the P2 (3, 4) of an image of ``size``."""
    lines = []
    for key, values in _CALIBRATION.items():
        entries = np.array(values)
        if key == "P2":
            entries = np.asarray(P2).ravel()
        elif key.startswith("P"):
            entries = scale_P2(entries.reshape(3, 4), NATIVE_SIZE, size).ravel()
        lines.append(f"{key}: " + " ".join(f"{value:.12e}" for value in entries))
    return "\n".join(lines) + "\n\n"


def encode_png(image_bgr: np.ndarray) -> bytes:
    """PNG bytes; the quick compression, since sensor noise hardly compresses and speed counts."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # OpenCV 4.12; the default tries five filters on every row
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]
    done, buffer = cv2.imencode(".png", image_bgr, options)
    if not done:
        raise OSError(f"could not encode an image of shape {image_bgr.shape} as PNG")
    return buffer.tobytes()


def label_text(objects: tuple[Object3d, ...]) -> str:
    """Label lines in KITTI's column order, two decimals."""
    return "".join(item.to_label_line() + "\n" for item in objects)
