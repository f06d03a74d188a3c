"""What one frame shows, as immutable values: ground plane, road, light, camera, objects.

Lateral coordinates [m] are measured to the right from the middle of the camera's lane, which follows
x = x0 + yaw z + curve z^2 in the rectified camera frame.
"""

from dataclasses import dataclass

import numpy as np

from ..structures import Calibration, Object3d
from .solids import Colour

ImageSize = tuple[int, int]  # (width, height) [px]


@dataclass(frozen=True, slots=True)
class Ground:
    """The plane y = height + roll x + pitch z in the rectified camera frame [m]."""

    height: float
    roll: float
    pitch: float

    def y_at(self, x: float, z: float) -> float:
        """y [m] of the ground at (x, z) [m]."""
        return self.height + self.roll * x + self.pitch * z


@dataclass(frozen=True, slots=True)
class StreetKind:
    """Probabilities of houses and of trees along a street, and whether it has pavements."""

    houses: float
    trees: float
    pavement: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """A lengthwise strip of the ground, from the end of the previous strip to ``end``."""

    end: float  # lateral of the right edge [m]
    material: str  # 'asphalt', 'grass' or 'brick'
    colour: Colour


@dataclass(frozen=True, slots=True)
class Marking:
    """A painted line along the road."""

    lateral: float
    width: float
    dash: float  # length of a dash and of the gap [m]; 0: solid


@dataclass(frozen=True, slots=True)
class Road:
    """Course, cross-section and markings of a road."""

    kind: StreetKind
    x0: float
    yaw: float
    curve: float
    lanes: tuple[tuple[float, int], ...]  # lateral of the centre [m], and +1: away from the camera, -1: towards it
    parking: tuple[tuple[float, int], ...]  # strips of parked vehicles, in the same form
    strips: tuple[Strip, ...]
    markings: tuple[Marking, ...]
    left: float  # laterals of the kerbs [m]
    right: float

    def x_at(self, lateral: float, z: float) -> float:
        """x [m] of a point at ``lateral`` and depth ``z``."""
        return self.x0 + lateral + self.yaw * z + self.curve * z * z

    def heading(self, z: float) -> float:
        """Angle between road and z axis at depth ``z`` [rad], positive to the right."""
        return float(np.arctan(self.yaw + 2 * self.curve * z))

    def lateral_at(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`x_at`, for arrays of equal shape."""
        return x - self.x0 - z * (self.yaw + self.curve * z)


@dataclass(frozen=True, slots=True)
class Lighting:
    """Sun and sky of one frame."""

    sun: tuple[float, float, float]  # unit vector towards the sun, camera frame (y < 0: above the horizon)
    sun_strength: float
    ambient: float
    sky_colour: Colour  # reflected by glossy faces

    @property
    def on_ground(self) -> float:
        """Brightness of the sunlit ground."""
        return self.ambient + self.sun_strength * max(-self.sun[1], 0.0)


@dataclass(frozen=True, slots=True)
class Look:
    """Sky and image sensor of one frame."""

    sky_top: Colour
    sky_low: Colour
    clouds: float  # opacity, 0..1
    exposure: float
    gamma: float
    tint: Colour  # factors of the three channels
    noise: float  # standard deviation of the sensor noise [grey levels]
    blur: float  # standard deviation [px]; 0: none


@dataclass(frozen=True, slots=True)
class Prop:
    """An object without a label: it can hide labelled objects."""

    kind: str  # 'tree', 'bush', 'pole', 'lamp', 'sign' or 'house'
    x: float
    z: float
    size: float  # height [m]
    variant: int  # selects shape and texture
    colour: Colour = (0.5, 0.5, 0.5)
    end: tuple[float, float] = (0.0, 0.0)  # houses only: (x, z) of the far end of the front wall [m]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that :func:`render` needs for one frame."""

    size: ImageSize
    calibration: Calibration
    ground: Ground
    road: Road
    lighting: Lighting
    look: Look
    objects: tuple[Object3d, ...]  # only type, dimensions and pose are used; the rest is measured in the image
    props: tuple[Prop, ...]
    seed: tuple[int, ...]  # of shapes, colours and textures
