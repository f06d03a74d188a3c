"""The part of a KITTI calibration file that a monocular detector uses: P2, the left colour camera.

``P2`` (3, 4) maps rectified camera coordinates [m] to pixels of the original image.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..evaluation.reading import is_number, read_lines
from ..ops.angles import wrap_angle

Real = TypeVar("Real", float, np.ndarray)
MATRIX_KEYS = ("P2", "P_rect_02", "P_rect_00", "K")
"""KITTI's object and odometry files; calib_cam_to_cam.txt of raw drives; KITTI-360's perspective.txt; a 3x3 matrix"""
MAX_PIXELS = 1e6  # largest focal length and principal point [px]
MAX_SHIFT = 2.0  # [m] a camera's largest distance from the origin of its frame; KITTI's colour cameras: 0.47 m


class Calibration:
    """Projection matrix of the left colour camera, with the official code's conventions.

    Pixels are P2's first two rows divided by the point's own z (not by the third row, which adds P2[2, 3], a few
    millimetres); the inverse shifts x and y by P2's fourth column divided by the focal length.
    """

    def __init__(self, P2: np.ndarray) -> None:
        """``P2``: (3, 4), or (3, 3) without translation; any array-like, scaled so that P2[2, 2] is 1.

        Raises ValueError for what is not the matrix of a rectified camera, (fu 0 cu t1; 0 fv cv t2; 0 0 1 t3).
        """
        P2 = np.array(P2, dtype=np.float64)
        P2 = np.column_stack([P2, np.zeros(3)]) if P2.shape == (3, 3) else P2.reshape(3, 4)
        _check_projection(P2)
        P2 = P2 / P2[2, 2]
        P2.setflags(write=False)
        self.P2 = P2
        self.fu, self.fv = float(P2[0, 0]), float(P2[1, 1])
        self.cu, self.cv = float(P2[0, 2]), float(P2[1, 2])
        self.tx, self.ty = float(-P2[0, 3] / self.fu), float(-P2[1, 3] / self.fv)
        shift = max(abs(self.tx), abs(self.ty), abs(P2[2, 3]))
        if shift > MAX_SHIFT:
            reason = "is it in millimetres, or the pose of the camera?"
            raise ValueError(f"P2 shifts the camera by {shift:.3g} m, more than {MAX_SHIFT:g} m: {reason}")

    @classmethod
    def from_file(cls, path: str | Path) -> Calibration:
        """Read the matrix of the first of ``MATRIX_KEYS`` that a file has: 12 or, without translation, 9 numbers.

        The numbers may continue on the next lines. Raises FileNotFoundError, and ValueError, naming file and line, if
        the matrix is missing, malformed or written twice with different numbers.
        """
        entries: dict[str, list[tuple[int, list[bytes]]]] = {}
        current: list[bytes] = []
        for number, line in enumerate(read_lines(path), 1):
            name, colon, values = line.partition(b":")
            if colon:
                current = values.split()
                entries.setdefault(name.strip().decode(errors="replace"), []).append((number, current))
            elif len(current) < 12 and all(map(is_number, line.split())):
                current += line.split()
            else:
                current = []
        key = next((key for key in MATRIX_KEYS if key in entries), None)
        if key is None:
            found = f"; its keys: {', '.join(list(entries)[:8])}" if entries else ""
            raise ValueError(f"{path}: no line 'P2: ...' (12 numbers), nor {', '.join(MATRIX_KEYS[1:])}{found}")
        (number, words), *repeated = entries[key]
        if len(words) not in (9, 12) or not all(map(is_number, words)):
            text = b" ".join(words)[:120].decode(errors="backslashreplace")
            raise ValueError(f"{path}, line {number}: {key} must have 12 numbers (9 without translation), got {text!r}")
        matrix = [float(word) for word in words]
        if any(not all(map(is_number, other)) or list(map(float, other)) != matrix for _, other in repeated):
            raise ValueError(f"{path}, line {repeated[0][0]}: {key} differs from that on line {number}")
        try:
            return cls(np.reshape(matrix, (3, -1)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """(N, 3) [m] -> (N, 2) [px of the original image]. Points at z <= 0 give no meaningful pixel."""
        points_cam = np.asarray(points_cam, dtype=np.float64)
        return (points_cam @ self.P2[:2, :3].T + self.P2[:2, 3]) / points_cam[:, 2:3]

    def project_homogeneous(self, points_cam: np.ndarray) -> np.ndarray:
        """Like :meth:`project`, but divided by P2's third row, as the official code does for boxes around corners."""
        points_cam = np.asarray(points_cam, dtype=np.float64)
        uvw = points_cam @ self.P2[:, :3].T + self.P2[:, 3]
        return uvw[:, :2] / uvw[:, 2:]

    def back_project(self, u_img: Real, v_img: Real, depth: Real) -> tuple[Real, Real, Real]:
        """Pixels (u, v) at ``depth`` z [m] -> points (x, y, z) [m, rectified camera]; numbers or (N,) arrays."""
        x = (u_img - self.cu) * depth / self.fu + self.tx
        y = (v_img - self.cv) * depth / self.fv + self.ty
        return x, y, depth

    def alpha_to_rotation_y(self, alpha: float, u_img: float) -> float:
        """Observation angle -> rotation_y [rad] for an object seen at column ``u_img`` [px], in [-pi, pi]."""
        return wrap_angle(alpha + math.atan2(u_img - self.cu, self.fu))

    def rotation_y_to_alpha(self, rotation_y: float, u_img: float) -> float:
        """The inverse of :meth:`alpha_to_rotation_y`."""
        return wrap_angle(rotation_y - math.atan2(u_img - self.cu, self.fu))


def _check_projection(P2: np.ndarray) -> None:
    """Decoding inverts two scales and two shifts: it cannot honour a skew, or a third row that is not (0, 0, c, t)."""
    if not np.isfinite(P2).all() or min(P2[0, 0], P2[1, 1], P2[2, 2]) <= 0:
        raise ValueError(f"P2 must be finite with positive focal lengths and P2[2, 2] > 0, got {P2.tolist()}")
    pixels = abs(np.array([P2[0, 0], P2[1, 1], P2[0, 2], P2[1, 2]])) / P2[2, 2]
    if not (pixels[:2].min() >= 1 and pixels.max() <= MAX_PIXELS):
        accepted = f"focal lengths of at least 1 and no value above {MAX_PIXELS:g}"
        raise ValueError(f"P2 must be in pixels, with {accepted}, got {P2.tolist()}")
    for row, column, most in ((0, 1, 0.1), (1, 0, 0.1), (2, 0, 1e-4), (2, 1, 1e-4)):  # errors of at most 0.1 px
        if abs(P2[row, column]) > most * P2[2, 2]:
            expected = "must be 0, as of a rectified camera without skew"
            raise ValueError(f"P2[{row}, {column}] {expected}, got {P2[row, column]:g}")
