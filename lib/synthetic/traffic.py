"""Random traffic: types, sizes and poses of the objects of a frame, without overlaps, rounded as in a label file."""

import math

import numpy as np

from ..ops.angles import wrap_angle
from ..structures import Object3d
from .footprints import footprints_overlap
from .scene import Ground, Road

FARTHEST_M = 85.0
NEAREST_M = 2.5

# mean, standard deviation, minimum, maximum of (height, width, length) [m]; the means are about those of KITTI's labels
_SIZES = {
    "Car": ((1.53, 1.63, 3.88), (0.12, 0.09, 0.40), (1.30, 1.40, 3.00), (1.90, 1.95, 5.00)),
    "Van": ((2.15, 1.90, 5.00), (0.25, 0.13, 0.60), (1.75, 1.65, 3.80), (2.80, 2.30, 6.80)),
    "Truck": ((3.25, 2.59, 9.50), (0.35, 0.15, 2.00), (2.60, 2.20, 5.50), (4.00, 2.90, 13.0)),
    "Pedestrian": ((1.76, 0.66, 0.84), (0.10, 0.11, 0.20), (1.30, 0.45, 0.45), (2.00, 0.95, 1.30)),
    "Cyclist": ((1.74, 0.60, 1.76), (0.09, 0.10, 0.12), (1.50, 0.42, 1.45), (1.95, 0.85, 2.05)),
}
_MOVING = (("Car", "Van", "Truck", "Cyclist"), (0.84, 0.10, 0.03, 0.03))
_PARKED = (("Car", "Van"), (0.91, 0.09))


def random_objects(rng: np.random.Generator, road: Road, ground: Ground) -> list[Object3d]:
    """Objects of one frame: moving and parked vehicles, people, and sometimes crossing traffic."""
    traffic = _Traffic(rng, road, ground)
    busy = rng.uniform(0.5, 1.5)
    for lateral, direction in road.lanes:
        traffic.fill_lane(lateral, direction, gap_m=rng.uniform(9, 32) / busy, parked=False)
    for lateral, direction in road.parking:
        traffic.fill_lane(lateral, direction, gap_m=rng.uniform(0.8, 14), parked=True)
    traffic.add_pedestrians()
    traffic.add_cyclists()
    if rng.random() < 0.35:
        traffic.add_crossing()
    return traffic.objects


class _Traffic:
    """Objects placed so far. Objects that would overlap others, or the camera's own car, are left out."""

    def __init__(self, rng: np.random.Generator, road: Road, ground: Ground) -> None:
        self.rng, self.road, self.ground = rng, road, ground
        self.objects: list[Object3d] = []

    def fill_lane(self, lateral: float, direction: int, gap_m: float, parked: bool) -> None:
        """Vehicles one behind the other, with random gaps around ``gap_m``."""
        rng = self.rng
        kinds, shares = _PARKED if parked else _MOVING
        z = NEAREST_M + rng.uniform(0, 4) + rng.exponential(0.4 * gap_m)
        while z < FARTHEST_M:
            kind = str(rng.choice(kinds, p=shares))
            size = self._dimensions(kind)
            z += 0.5 * size[2]
            side = rng.normal(0, 0.10 if parked else 0.22)
            facing = -direction if parked and rng.random() < 0.2 else direction
            turn = rng.normal(0, 0.025) + (rng.normal(0, 0.15) if rng.random() < 0.06 else 0.0)
            self._place(kind, size, self.road.x_at(lateral + side, z), z, self._along(z, facing) + turn)
            # thinner with distance: annotated cars in KITTI have a median depth of 25 m
            z += 0.5 * size[2] + 0.8 + rng.exponential(gap_m * (0.45 + z / 32))

    def add_pedestrians(self) -> None:
        """Pedestrians on both pavements, alone or in pairs."""
        rng, road = self.rng, self.road
        for _ in range(int(rng.poisson(1.8))):
            z = rng.uniform(4, 45)
            lateral = (road.left - 1.4, road.right + 1.4)[int(rng.integers(2))] + rng.normal(0, 0.4)
            rotation = self._along(z, 1 if rng.random() < 0.5 else -1) + rng.normal(0, 0.2)
            if rng.random() < 0.15:
                rotation = rng.uniform(-math.pi, math.pi)
            for neighbour in range(2 if rng.random() < 0.25 else 1):
                x = road.x_at(lateral + 0.85 * neighbour, z)
                self._place("Pedestrian", self._dimensions("Pedestrian"), x, z + 0.2 * neighbour, rotation)

    def add_cyclists(self) -> None:
        """Cyclists along the kerbs."""
        rng, road = self.rng, self.road
        for _ in range(int(rng.poisson(0.55))):
            z = rng.uniform(5, 45)
            right = rng.random() < 0.6
            lateral = (road.right - 0.7 if right else road.left + 0.7) + rng.normal(0, 0.3)
            rotation = self._along(z, 1 if right else -1) + rng.normal(0, 0.08)
            self._place("Cyclist", self._dimensions("Cyclist"), road.x_at(lateral, z), z, rotation)

    def add_crossing(self) -> None:
        """One or two objects across the road or turning, or parked at an angle beside it."""
        rng, road = self.rng, self.road
        for _ in range(int(rng.integers(1, 3))):
            z = rng.uniform(9, 50)
            kind = str(rng.choice(["Car", "Car", "Car", "Van", "Pedestrian", "Cyclist"]))
            across = road.heading(z) + (0.0 if rng.random() < 0.5 else math.pi)
            if rng.random() < 0.35:
                across = rng.uniform(-math.pi, math.pi)
            lateral = rng.uniform(road.left - 3.0, road.right + 3.0)
            size = self._dimensions(kind)
            self._place(kind, size, road.x_at(lateral, z), z, across + rng.normal(0, 0.1))

    def _dimensions(self, kind: str) -> np.ndarray:
        """Random (h, w, l) [m]; a part of the variation is common to the three, as in reality."""
        mean, spread, low, high = np.array(_SIZES[kind])
        common = self.rng.standard_normal()
        return np.clip(mean + spread * (0.45 * common + 0.9 * self.rng.standard_normal(3)), low, high)

    def _along(self, z: float, direction: int) -> float:
        """rotation_y [rad] of an object that moves away from (+1) or towards (-1) the camera at depth ``z``."""
        away = self.road.heading(z) - math.pi / 2
        return away if direction > 0 else away + math.pi

    def _place(self, kind: str, dimensions: np.ndarray, x: float, z: float, rotation_y: float) -> None:
        """Add an object that stands on the ground at (x, z) [m, camera frame]."""
        x, z = round(x, 2), round(z, 2)
        h, w, length = (round(float(v), 2) for v in dimensions)
        location = (float(x), float(round(self.ground.y_at(x, z), 2)), float(z))
        item = Object3d(kind, 0.0, 0, 0.0, (0.0,) * 4, (h, w, length), location, round(wrap_angle(rotation_y), 2))
        rear = z - 0.5 * length
        own_car = (abs(x) < 1.0 + 0.5 * w and rear < 2.5) or (abs(x) < 1.2 and rear < 3.0)
        if z >= NEAREST_M and not own_car and not any(footprints_overlap(item, other) for other in self.objects):
            self.objects.append(item)
