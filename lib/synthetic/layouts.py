"""Scenes from a random generator, or with the object poses and the camera of an existing label file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..structures import Calibration, Object3d, read_objects
from .appearance import OBJECT_TYPES
from .clutter import random_props
from .files import KITTI_P2, NATIVE_SIZE, native_size, scale_P2
from .scene import Ground, Road, Scene
from .street import (
    Kind,
    random_ground,
    random_kind,
    random_lighting,
    random_look,
    random_road,
)
from .traffic import random_objects


def random_scene(seed: int, frame: int, size: tuple[int, int] = NATIVE_SIZE, stream: int = 0) -> Scene:
    """Frame number ``frame`` of data set ``seed``: depends on nothing else. ``stream`` 1 is the test split."""
    key = (seed, stream, frame)
    rng = np.random.default_rng((*key, 0))
    calibration = Calibration(scale_P2(KITTI_P2, NATIVE_SIZE, size))
    kind, ground = random_kind(rng), random_ground(rng)
    road = random_road(rng, kind)
    pavement = (road.left - 1.4, road.right + 1.4)
    objects = random_objects(rng, road, ground, pavement)
    reserved = (road.left - 3.2, road.right + 3.2)
    return _dress(rng, key, kind, road, ground, calibration, size, objects, reserved)


def layout_scene(label_path: Path, calib_path: Path, seed: int, size: tuple[int, int] | None = None) -> Scene:
    """The objects of a KITTI label file (types, sizes, poses unchanged; DontCare dropped) in a random street.

    The ground plane is fitted to the objects' bottoms. ``size`` None: the size that belongs to the calibration.
    Raises FileNotFoundError or ValueError for missing or broken files.
    """
    calibration = Calibration.from_file(calib_path)
    own_size = native_size(calibration)
    size = size or own_size
    calibration = Calibration(scale_P2(calibration.P2, own_size, size))
    objects = [o for o in read_objects(label_path) if o.type in OBJECT_TYPES and o.location_cam[2] > -50]
    frame = int(label_path.stem) if label_path.stem.isdecimal() else sum(label_path.stem.encode())
    key = (seed, 2, frame)
    rng = np.random.default_rng((*key, 0))
    kind, ground = random_kind(rng), fit_ground(objects)
    yaw, cover = _course(objects)
    road = random_road(rng, kind, yaw, cover)
    reserved = (road.left - 3.2, road.right + 3.2)
    if objects:
        points = np.array([(o.location_cam[0], o.location_cam[2]) for o in objects])
        lateral = road.lateral_at(points[:, 0], points[:, 1])
        reach = max(o.dimensions[2] for o in objects)
        reserved = (min(road.left, float(lateral.min()) - reach) - 2, max(road.right, float(lateral.max()) + reach) + 2)
    return _dress(rng, key, kind, road, ground, calibration, size, objects, reserved)


def _course(objects: list[Object3d]) -> tuple[float | None, tuple[float, float]]:
    """The road's direction [rad] that most vehicles share, None if there are none, and the laterals that they use."""
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
    """Plane through the bottoms of the objects (least squares), drawn towards KITTI's usual 1.65 m and level road."""
    # unknowns: height, roll, pitch. The prior rows weigh as much as one object each at the stated spread.
    prior = np.diag([1 / 0.15, 1 / 0.02, 1 / 0.015])
    target = np.array([1.65 / 0.15, 0.0, 0.0])
    if objects:
        points = np.array([o.location_cam for o in objects])
        # far objects say less: their height is less certain, and the road may climb on the way there
        weight = 1 / (0.10 + 0.01 * np.abs(points[:, 2]))
        rows = np.stack([np.ones(len(points)), points[:, 0], points[:, 2]], axis=1) * weight[:, None]
        prior, target = np.concatenate([prior, rows]), np.concatenate([target, points[:, 1] * weight])
    height, roll, pitch = np.linalg.lstsq(prior, target, rcond=None)[0]
    return Ground(
        float(np.clip(height, 1.0, 2.4)), float(np.clip(roll, -0.06, 0.06)), float(np.clip(pitch, -0.05, 0.05))
    )


def _dress(
    rng: np.random.Generator,
    key: tuple[int, ...],
    kind: Kind,
    road: Road,
    ground: Ground,
    calibration: Calibration,
    size: tuple[int, int],
    objects: list[Object3d],
    reserved: tuple[float, float],
) -> Scene:
    """Light, sensor and clutter around given objects."""
    lighting, look = random_lighting(rng), random_look(rng)
    # blur and noise belong to the sensor: at a smaller size there is less of both per pixel
    small = min(1.0, size[0] / NATIVE_SIZE[0])
    look = replace(look, blur=look.blur * small if look.blur * small > 0.3 else 0.0)
    props = random_props(rng, kind, road, objects, reserved)
    return Scene(
        size=size,
        calibration=calibration,
        ground=ground,
        road=road,
        lighting=lighting,
        look=look,
        objects=tuple(objects),
        props=tuple(props),
        background_lateral=reserved,
        seed=key,
    )
