"""Scenes from random numbers alone, or with the object poses and the camera of an existing label file."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..structures import Calibration, Object3d, read_objects
from ..structures.camera import KITTI_P2, KITTI_SIZE
from .appearance import OBJECT_TYPES
from .scene import Ground, ImageSize, Lighting, Look, Prop, Road, Scene
from .solids import Span
from .street import random_ground, random_kind, random_lighting, random_look, random_props, random_road
from .traffic import random_objects

# image sizes (width, height) [px] of KITTI's four recording set-ups, by the focal length [px]
_SIZES_BY_FOCAL = {721.5377: (1242, 375), 707.0493: (1224, 370), 718.3351: (1238, 374), 718.856: (1241, 376)}


def random_scene(seed: int, frame: int, size: ImageSize = KITTI_SIZE, stream: int = 0) -> Scene:
    """Frame number ``frame`` of data set ``seed``; ``size``: (width, height) [px]; ``stream``: 1 for the test split.

    The scene is a function of these arguments alone; the number of frames does not matter.
    """
    key = (seed, stream, frame)
    rng = np.random.default_rng((*key, 0))
    kind, ground = random_kind(rng), random_ground(rng)
    road = random_road(rng, kind)
    objects = random_objects(rng, road, ground)
    calibration = Calibration(scale_P2(np.array(KITTI_P2), KITTI_SIZE, size))
    lighting, look, props = _random_surroundings(rng, size, road, objects)
    return Scene(size, calibration, ground, road, lighting, look, tuple(objects), props, key)


def layout_scene(label_path: Path, calib_path: Path, seed: int, size: ImageSize | None = None) -> Scene:
    """The objects of a KITTI label file (types, sizes, poses unchanged; DontCare left out) in a random street.

    The ground plane is fitted to the bottoms of the objects. ``size`` None: the size that belongs to the calibration's
    focal length, the most frequent one if it is unknown.
    Raises FileNotFoundError or ValueError for missing or broken files.
    """
    calibration = Calibration.from_file(calib_path)
    own_size = next((s for focal, s in _SIZES_BY_FOCAL.items() if abs(calibration.fu - focal) < 0.01), KITTI_SIZE)
    size = size or own_size
    calibration = Calibration(scale_P2(calibration.P2, own_size, size))
    objects = [o for o in read_objects(label_path) if o.type in OBJECT_TYPES and o.location_cam[2] > -50]
    frame = int(label_path.stem) if label_path.stem.isdecimal() else sum(label_path.stem.encode())
    key = (seed, 2, frame)
    rng = np.random.default_rng((*key, 0))
    kind, ground = random_kind(rng), fit_ground(objects)
    road = random_road(rng, kind, *_course(objects))
    reserved = None
    if objects:
        x, _, z = np.array([o.location_cam for o in objects]).T
        lateral, reach = road.lateral_at(x, z), max(o.dimensions[2] for o in objects)
        reserved = (min(road.left, float(lateral.min()) - reach) - 2, max(road.right, float(lateral.max()) + reach) + 2)
    lighting, look, props = _random_surroundings(rng, size, road, objects, reserved)
    return Scene(size, calibration, ground, road, lighting, look, tuple(objects), props, key)


def _course(objects: list[Object3d]) -> tuple[float | None, Span]:
    """The direction [rad] that most vehicles share, None if there are none, and the range of laterals [m] in use."""
    vehicles = [o for o in objects if o.type in ("Car", "Van", "Truck", "Tram")]
    # against the z axis, and modulo half a turn: both directions of travel count
    angles = [(o.rotation_y + math.pi) % math.pi - math.pi / 2 for o in vehicles]
    along = [(o, angle) for o, angle in zip(vehicles, angles, strict=True) if abs(angle) < 0.4]
    if not along:
        return None, (0.0, 0.0)
    yaw = float(np.median([angle for _, angle in along]))
    lateral = [o.location_cam[0] - math.tan(yaw) * o.location_cam[2] for o, _ in along]
    near = [value for value in lateral if abs(value) < 14]
    return yaw, (min(near, default=0.0) - 1.4, max(near, default=0.0) + 1.4)


def fit_ground(objects: list[Object3d]) -> Ground:
    """Least-squares plane through the bottoms of the objects, regularized towards 1.65 m below a level camera."""
    # unknowns: height, roll, pitch. Each prior row weighs as much as one object at the stated standard deviation.
    rows, target = np.diag([1 / 0.15, 1 / 0.02, 1 / 0.015]), np.array([1.65 / 0.15, 0.0, 0.0])
    if objects:
        x, y, z = np.array([o.location_cam for o in objects]).T
        # far objects weigh less: their height is less certain, and the slope of the road may change in between
        weight = 1 / (0.10 + 0.01 * np.abs(z))
        rows = np.concatenate([rows, np.stack([np.ones(len(z)), x, z], axis=1) * weight[:, None]])
        target = np.concatenate([target, y * weight])
    limits = np.array([(1.0, 2.4), (-0.06, 0.06), (-0.05, 0.05)]).T
    return Ground(*np.clip(np.linalg.lstsq(rows, target, rcond=None)[0], *limits).tolist())


def _random_surroundings(
    rng: np.random.Generator, size: ImageSize, road: Road, objects: list[Object3d], reserved: Span | None = None
) -> tuple[Lighting, Look, tuple[Prop, ...]]:
    """Light, image sensor and props; ``reserved``: laterals [m] between which there are no houses."""
    lighting, look = random_lighting(rng), random_look(rng)
    # blur belongs to the sensor: a smaller image has less of it per pixel
    blur = look.blur * min(1.0, size[0] / KITTI_SIZE[0])
    look = replace(look, blur=blur if blur > 0.3 else 0.0)
    return lighting, look, tuple(random_props(rng, road, objects, reserved or (road.left - 3.2, road.right + 3.2)))


def scale_P2(P2: np.ndarray, size: ImageSize, new_size: ImageSize) -> np.ndarray:
    """P2 (3, 4) of the same camera with its image resized from ``size`` to ``new_size`` (width, height)."""
    factors = np.array([[new_size[0] / size[0]], [new_size[1] / size[1]], [1.0]])
    return np.asarray(P2, dtype=np.float64) * factors
