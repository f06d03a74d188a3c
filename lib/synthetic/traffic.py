"""Random traffic: who stands where, how large and which way, without overlaps. Values are as a label states them."""

from __future__ import annotations

import math

import numpy as np

from ..ops.angles import wrap_angle
from ..structures import Object3d
from .scene import Ground, Road

FARTHEST_M = 85.0
NEAREST_M = 2.5

# mean and standard deviation of (height, width, length) [m] over KITTI's 7481 training labels, and hard limits
_SIZES = {
    "Car": ((1.53, 1.63, 3.88), (0.12, 0.09, 0.40), (1.30, 1.40, 3.00), (1.90, 1.95, 5.00)),
    "Van": ((2.15, 1.90, 5.00), (0.25, 0.13, 0.60), (1.75, 1.65, 3.80), (2.80, 2.30, 6.80)),
    "Truck": ((3.25, 2.59, 9.50), (0.35, 0.15, 2.00), (2.60, 2.20, 5.50), (4.00, 2.90, 13.0)),
    "Pedestrian": ((1.76, 0.66, 0.84), (0.10, 0.11, 0.20), (1.30, 0.45, 0.45), (2.00, 0.95, 1.30)),
    "Cyclist": ((1.74, 0.60, 1.76), (0.09, 0.10, 0.12), (1.50, 0.42, 1.45), (1.95, 0.85, 2.05)),
}


def random_objects(
    rng: np.random.Generator, road: Road, ground: Ground, pavement: tuple[float, float]
) -> list[Object3d]:
    """Objects of one frame; ``pavement``: laterals [m] of the middle of the left and right foot path."""
    placed: list[Object3d] = []
    busy = rng.uniform(0.5, 1.5)
    for lateral, direction in road.lanes:
        _fill_lane(rng, placed, road, ground, (lateral, direction), gap=rng.uniform(9, 32) / busy, parked=False)
    for lateral, direction in road.parking:
        _fill_lane(rng, placed, road, ground, (lateral, direction), gap=rng.uniform(0.8, 14), parked=True)
    _add_people(rng, placed, road, ground, pavement)
    if rng.random() < 0.35:
        _add_crossing(rng, placed, road, ground)
    return placed


def make_object(
    kind: str, dimensions: np.ndarray, position: tuple[float, float], rotation_y: float, ground: Ground
) -> Object3d:
    """An object standing on the ground, with everything rounded to the two decimals of a label file."""
    x, z = round(position[0], 2), round(position[1], 2)
    h, w, length = (round(float(v), 2) for v in dimensions)
    return Object3d(
        type=kind,
        truncated=0.0,
        occluded=0,
        alpha=0.0,
        bbox_img=(0.0, 0.0, 0.0, 0.0),
        dimensions=(h, w, length),
        location_cam=(x, round(ground.y_at(x, z), 2), z),
        rotation_y=round(wrap_angle(rotation_y), 2),
    )


def random_dimensions(rng: np.random.Generator, kind: str) -> np.ndarray:
    """(h, w, l) [m], spread as in KITTI; the three share a part of their variation, as real sizes do."""
    mean, spread, low, high = (np.array(v) for v in _SIZES[kind])
    common = rng.standard_normal()
    return np.clip(mean + spread * (0.45 * common + 0.9 * rng.standard_normal(3)), low, high)


def footprints_overlap(a: Object3d, b: Object3d, margin: float = 0.25) -> bool:
    """Whether two boxes, seen from above and each grown by ``margin`` / 2 [m], overlap (separating axes)."""
    reach = 0.5 * (math.hypot(*a.dimensions[1:]) + math.hypot(*b.dimensions[1:])) + 2 * margin
    if math.dist(a.location_cam[::2], b.location_cam[::2]) > reach:
        return False
    corners = [item.corners_cam()[:4][:, [0, 2]] for item in (a, b)]
    for item in (a, b):
        cos, sin = math.cos(item.rotation_y), math.sin(item.rotation_y)
        for axis in (np.array([cos, -sin]), np.array([sin, cos])):
            first, second = (points @ axis for points in corners)
            if first.max() + margin <= second.min() or second.max() + margin <= first.min():
                return False
    return True


def _try_place(placed: list[Object3d], item: Object3d) -> bool:
    """Add the object unless it overlaps another one or the camera's own car."""
    x, _, z = item.location_cam
    reach = 0.5 * item.dimensions[2]
    if z < NEAREST_M or (abs(x) < 1.0 + 0.5 * item.dimensions[1] and z - reach < 2.5):
        return False
    if abs(x) < 1.2 and z - reach < 3.0:
        return False
    if any(footprints_overlap(item, other) for other in placed):
        return False
    placed.append(item)
    return True


def _along_road(road: Road, z: float, direction: int) -> float:
    """rotation_y [rad] of something that drives away from (+1) or towards (-1) the camera at depth ``z``."""
    away = road.heading(z) - math.pi / 2
    return away if direction > 0 else away + math.pi


def _fill_lane(
    rng: np.random.Generator,
    placed: list[Object3d],
    road: Road,
    ground: Ground,
    lane: tuple[float, int],
    gap: float,
    parked: bool,
) -> None:
    """Vehicles one behind the other, with random gaps of about ``gap`` [m] on average."""
    lateral, direction = lane
    kinds, shares = ["Car", "Van", "Truck", "Cyclist"], [0.84, 0.10, 0.03, 0.03]
    if parked:
        kinds, shares = ["Car", "Van"], [0.91, 0.09]
    z = NEAREST_M + rng.uniform(0, 4) + rng.exponential(0.4 * gap)
    while z < FARTHEST_M:
        kind = str(rng.choice(kinds, p=shares))
        size = random_dimensions(rng, kind)
        z += 0.5 * size[2]
        side = rng.normal(0, 0.10 if parked else 0.22)
        facing = -direction if parked and rng.random() < 0.2 else direction
        turn = rng.normal(0, 0.025) + (rng.normal(0, 0.15) if rng.random() < 0.06 else 0.0)
        rotation = _along_road(road, z, facing) + turn
        _try_place(placed, make_object(kind, size, (road.x_at(lateral + side, z), z), rotation, ground))
        # thinner with distance: annotated cars in KITTI have a median depth of 25 m
        z += 0.5 * size[2] + 0.8 + rng.exponential(gap * (0.45 + z / 32))


def _add_people(
    rng: np.random.Generator, placed: list[Object3d], road: Road, ground: Ground, pavement: tuple[float, float]
) -> None:
    """Pedestrians on the pavements, alone or in pairs, and cyclists along the kerb."""
    for _ in range(int(rng.poisson(1.8))):
        z = float(rng.uniform(4, 45))
        lateral = pavement[int(rng.integers(2))] + rng.normal(0, 0.4)
        direction = 1 if rng.random() < 0.5 else -1
        rotation = _along_road(road, z, direction) + rng.normal(0, 0.2)
        if rng.random() < 0.15:
            rotation = rng.uniform(-math.pi, math.pi)
        for neighbour in range(2 if rng.random() < 0.25 else 1):
            size = random_dimensions(rng, "Pedestrian")
            position = (road.x_at(lateral + 0.85 * neighbour, z), z + 0.2 * neighbour)
            _try_place(placed, make_object("Pedestrian", size, position, rotation, ground))
    for _ in range(int(rng.poisson(0.55))):
        z = float(rng.uniform(5, 45))
        right = rng.random() < 0.6
        lateral = (road.right - 0.7 if right else road.left + 0.7) + rng.normal(0, 0.3)
        rotation = _along_road(road, z, 1 if right else -1) + rng.normal(0, 0.08)
        size = random_dimensions(rng, "Cyclist")
        _try_place(placed, make_object("Cyclist", size, (road.x_at(lateral, z), z), rotation, ground))


def _add_crossing(rng: np.random.Generator, placed: list[Object3d], road: Road, ground: Ground) -> None:
    """One or two vehicles across the road or turning, or parked at an angle beside it; or a pedestrian crossing."""
    for _ in range(int(rng.integers(1, 3))):
        z = float(rng.uniform(9, 50))
        kind = str(rng.choice(["Car", "Car", "Car", "Van", "Pedestrian", "Cyclist"]))
        across = road.heading(z) + (0.0 if rng.random() < 0.5 else math.pi)
        if rng.random() < 0.35:
            across = rng.uniform(-math.pi, math.pi)
        lateral = rng.uniform(road.left - 3.0, road.right + 3.0)
        size = random_dimensions(rng, kind)
        rotation = across + rng.normal(0, 0.1)
        _try_place(placed, make_object(kind, size, (road.x_at(lateral, z), z), rotation, ground))
