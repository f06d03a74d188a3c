"""What one frame shows, as immutable values: ground plane, road, light, camera. Drawn by ``render``.

Lateral coordinates ``d`` [m] run to the right from the camera's lane; the lane follows x = x0 + yaw z + curve z^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..structures import Calibration, Object3d
from .raster import Lighting


@dataclass(frozen=True, slots=True)
class Ground:
    """The plane y = height + roll x + pitch z in the rectified camera frame [m]."""

    height: float
    roll: float
    pitch: float

    def y_at(self, x: float, z: float) -> float:
        """Ground level below the point (x, z) [m]."""
        return self.height + self.roll * x + self.pitch * z


@dataclass(frozen=True, slots=True)
class Strip:
    """A lengthwise strip of the ground, from the previous strip's end to ``end``."""

    end: float
    """right edge, lateral [m]"""
    material: str
    """'asphalt', 'grass' or 'brick'"""
    colour: tuple[float, float, float]
    """BGR, 0..1"""


@dataclass(frozen=True, slots=True)
class Marking:
    """A painted line along the road."""

    lateral: float
    width: float
    dash: float
    """length of a dash and of the gap [m]; 0: solid"""


@dataclass(frozen=True, slots=True)
class Road:
    """Course, cross-section and markings."""

    x0: float
    yaw: float
    curve: float
    lanes: tuple[tuple[float, int], ...]
    """(lateral centre [m], +1 away from the camera or -1 towards it)"""
    parking: tuple[tuple[float, int], ...]
    """likewise, strips of parked cars"""
    strips: tuple[Strip, ...]
    markings: tuple[Marking, ...]
    left: float
    """lateral of the left kerb [m]"""
    right: float

    def x_at(self, lateral: float, z: float) -> float:
        """x [m] of a point at ``lateral`` and depth ``z``."""
        return self.x0 + lateral + self.yaw * z + self.curve * z * z

    def heading(self, z: float) -> float:
        """Angle of the road against the z axis at depth ``z`` [rad], positive to the right."""
        return float(np.arctan(self.yaw + 2 * self.curve * z))

    def lateral_at(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`x_at` for arrays."""
        return x - self.x0 - z * (self.yaw + self.curve * z)


@dataclass(frozen=True, slots=True)
class Look:
    """Sky and sensor of one frame."""

    sky_top: tuple[float, float, float]
    sky_low: tuple[float, float, float]
    clouds: float
    exposure: float
    gamma: float
    tint: tuple[float, float, float]
    noise: float
    """standard deviation of the sensor noise [grey levels]"""
    blur: float
    """standard deviation [px]; 0: none"""


@dataclass(frozen=True, slots=True)
class Prop:
    """Clutter that no label mentions."""

    kind: str
    """'tree', 'bush', 'pole', 'lamp', 'sign' or 'house'"""
    x: float
    z: float
    size: float
    """height [m]"""
    variant: int
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)
    end: tuple[float, float] = (0.0, 0.0)
    """houses: (x, z) of the far end of the front wall [m]"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the renderer needs for one frame."""

    size: tuple[int, int]
    """(width, height) [px]"""
    calibration: Calibration
    ground: Ground
    road: Road
    lighting: Lighting
    look: Look
    objects: tuple[Object3d, ...]
    """types, dimensions and poses count; the rest is measured after rendering"""
    props: tuple[Prop, ...]
    background_lateral: tuple[float, float]
    """left and right lateral [m] beyond which nothing labelled stands"""
    seed: tuple[int, ...]
    """for shapes, colours and textures"""
