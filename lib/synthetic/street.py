"""Random streets: course and cross-section of the road, light and sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .raster import Lighting
from .scene import Ground, Look, Marking, Road, Strip


@dataclass(frozen=True, slots=True)
class Kind:
    """What sort of street: shares of houses and trees, and whether there are pavements."""

    houses: float
    trees: float
    pavement: bool


KINDS = {"city": Kind(0.9, 0.25, True), "residential": Kind(0.5, 0.8, True), "country": Kind(0.06, 1.0, False)}


def random_kind(rng: np.random.Generator) -> Kind:
    """City, residential or country."""
    return KINDS[str(rng.choice(list(KINDS), p=[0.4, 0.38, 0.22]))]


def random_ground(rng: np.random.Generator) -> Ground:
    """KITTI's camera stands 1.65 m above the road; the car pitches and rolls a little."""
    return Ground(height=rng.normal(1.65, 0.04), roll=rng.normal(0, 0.006), pitch=rng.normal(0, 0.007))


def random_road(
    rng: np.random.Generator, kind: Kind, yaw: float | None = None, cover: tuple[float, float] = (0.0, 0.0)
) -> Road:
    """Lanes around the camera's own one, parking strips, pavements or verges.

    ``yaw`` [rad]: given instead of drawn, and then the road is straight; ``cover``: laterals [m] that the carriageway
    must reach.
    """
    width = rng.uniform(3.0, 3.6)
    oncoming, extra = int(rng.choice([1, 1, 1, 2])), int(rng.choice([0, 0, 0, 1]))
    lanes = [
        (0.0, 1),
        *((width * (i + 1), 1) for i in range(extra)),
        *((-width * (i + 1), -1) for i in range(oncoming)),
    ]
    left, right = -width * (oncoming + 0.5), width * (extra + 0.5)
    parking = []
    bay = 2.2
    chance = 0.6 if kind.pavement else 0.12
    if rng.random() < chance:
        parking.append((left - 0.5 * bay, -1))
        left -= bay
    if rng.random() < chance:
        parking.append((right + 0.5 * bay, 1))
        right += bay
    left, right = min(left, cover[0]), max(right, cover[1])
    x0, random_yaw, curve = rng.normal(0, 0.25), rng.normal(0, 0.02), rng.normal(0, 0.0007)
    return Road(
        x0=x0,
        yaw=random_yaw if yaw is None else math.tan(yaw),
        curve=curve if yaw is None else 0.0,
        lanes=tuple(lanes),
        parking=tuple(parking),
        strips=_strips(rng, kind, left, right),
        markings=_markings(rng, width, (oncoming, extra), (left, right), bool(parking)),
        left=left,
        right=right,
    )


def _strips(rng: np.random.Generator, kind: Kind, left: float, right: float) -> tuple[Strip, ...]:
    """The cross-section from far left to far right: ground, pavement or verge, kerb, road, and the mirror image."""

    def grey(low: float, high: float) -> tuple[float, float, float]:
        value = rng.uniform(low, high)
        b, g, r = value * rng.uniform(0.95, 1.05, 3)
        return float(b), float(g), float(r)

    brightness = rng.uniform(0.8, 1.2)
    grass = (
        0.13 * brightness,
        float(rng.uniform(0.28, 0.38)) * brightness,
        float(rng.uniform(0.22, 0.34)) * brightness,
    )
    road, kerb, path = grey(0.26, 0.42), grey(0.50, 0.62), grey(0.38, 0.55)
    path_material = str(rng.choice(["brick", "asphalt"]))
    if not kind.pavement:
        gap = float(rng.uniform(0.3, 1.2))
        return (
            Strip(left - gap, "grass", grass),
            Strip(left, "asphalt", path),
            Strip(right, "asphalt", road),
            Strip(right + gap, "asphalt", path),
            Strip(200.0, "grass", grass),
        )
    verge = float(rng.uniform(0.8, 2.5)) if rng.random() < 0.4 else 0.02
    wide = float(rng.uniform(1.6, 3.2))
    beyond = (grass, "grass") if kind.houses < 0.8 else (path, path_material)
    return (
        Strip(left - 0.2 - verge - wide, beyond[1], beyond[0]),
        Strip(left - 0.2 - verge, path_material, path),
        Strip(left - 0.2, "grass", grass),
        Strip(left, "asphalt", kerb),
        Strip(right, "asphalt", road),
        Strip(right + 0.2, "asphalt", kerb),
        Strip(right + 0.2 + verge, "grass", grass),
        Strip(right + 0.2 + verge + wide, path_material, path),
        Strip(200.0, beyond[1], beyond[0]),
    )


def _markings(
    rng: np.random.Generator,
    width: float,
    lanes: tuple[int, int],
    edges: tuple[float, float],
    parked: bool,
) -> tuple[Marking, ...]:
    oncoming, extra = lanes
    if rng.random() < 0.15:
        return ()  # small streets have no paint
    middle = [Marking(-0.5 * width, 0.14, float(rng.choice([0.0, 3.0, 4.0, 6.0])))]
    between = [Marking(-width * (i + 0.5), 0.12, 3.0) for i in range(1, oncoming)]
    between += [Marking(width * (i + 0.5), 0.12, 3.0) for i in range(extra)]
    borders = [Marking(edges[0] + 0.25, 0.14, 0.0), Marking(edges[1] - 0.25, 0.14, 0.0)]
    if parked:
        borders = [Marking(width * (extra + 0.5) + 0.1, 0.12, 0.0)]
    return (*middle, *between, *(borders if rng.random() < 0.7 else ()))


def random_lighting(rng: np.random.Generator) -> Lighting:
    """From overcast (all ambient) to hard sun."""
    elevation, azimuth = math.radians(rng.uniform(28, 70)), rng.uniform(-math.pi, math.pi)
    sun = (
        math.cos(elevation) * math.sin(azimuth),
        -math.sin(elevation),
        math.cos(elevation) * math.cos(azimuth),
    )
    sunny = rng.uniform(0, 1) ** 0.7
    blue = rng.uniform(0.75, 1.0)
    return Lighting(sun, 0.15 + 0.75 * sunny, 1.0 - 0.45 * sunny, (1.0, float(blue), float(blue * 0.9)))


def random_look(rng: np.random.Generator) -> Look:
    """Sky colours and sensor."""
    blue = rng.uniform(0.55, 1.0)
    grey = rng.random() < 0.35
    top = (0.88, 0.86, 0.84) if grey else (0.98 * blue, 0.72 * blue, 0.50 * blue)
    warmth = rng.normal(0, 0.04)
    return Look(
        sky_top=top,
        sky_low=(1.0, 0.97, 0.93),
        clouds=float(rng.uniform(0.2, 1.0)),
        exposure=float(rng.uniform(0.75, 1.25)),
        gamma=float(rng.uniform(0.8, 1.25)),
        tint=(1.0 - warmth, 1.0, 1.0 + warmth),
        noise=float(rng.uniform(1.0, 4.5)),
        blur=float(rng.choice([0.0, 0.0, 0.45, 0.6])),
    )
