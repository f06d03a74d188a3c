"""The part of a KITTI calibration file that a monocular detector uses: P2, the left colour camera.

``P2`` (3, 4) maps rectified camera coordinates [m] to pixels of the original image.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..ops.angles import wrap_angle

Real = TypeVar("Real", float, np.ndarray)


class Calibration:
    """Projection matrix of the left colour camera, with the official code's conventions.

    Pixels are P2's first two rows divided by the point's own z (not by the third row, which adds P2[2, 3], a few
    millimetres); the inverse shifts x and y by P2's fourth column divided by the focal length.
    """

    def __init__(self, P2: np.ndarray) -> None:
        """``P2``: (3, 4), any array-like. Raises ValueError unless it is finite with positive focal lengths."""
        P2 = np.array(P2, dtype=np.float64).reshape(3, 4)
        if not np.isfinite(P2).all() or P2[0, 0] <= 0 or P2[1, 1] <= 0:
            raise ValueError(f"P2 must be finite with positive focal lengths, got {P2.tolist()}")
        P2.setflags(write=False)
        self.P2 = P2
        self.fu, self.fv = float(P2[0, 0]), float(P2[1, 1])
        self.cu, self.cv = float(P2[0, 2]), float(P2[1, 2])
        self.tx, self.ty = float(-P2[0, 3] / self.fu), float(-P2[1, 3] / self.fv)

    @classmethod
    def from_file(cls, path: str | Path) -> Calibration:
        """Read the 12 numbers of the line ``P2:``.

        Raises FileNotFoundError, and ValueError, naming the file, if P2 is missing or malformed.
        """
        path = Path(path)
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not a text file; expected a KITTI calibration with a line 'P2: ...'") from None
        for number, line in enumerate(lines, 1):
            key, _, values = line.partition(":")
            if key.strip() != "P2":
                continue
            try:
                entries = [] if "_" in values else [float(v) for v in values.split()]
            except ValueError:
                entries = []
            if len(entries) != 12:
                raise ValueError(f"{path}, line {number}: P2 must have 12 numbers, got {values.strip()[:120]!r}")
            try:
                return cls(np.array(entries))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
        raise ValueError(f"{path}: no line 'P2: ...' (12 numbers); is this a KITTI calibration file?")

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
