"""Random streets: course and cross-section of the road, light, image sensor, and the props along the road."""

import math
from itertools import accumulate
from operator import add, sub

import numpy as np

from ..structures import Object3d
from .scene import Ground, Lighting, Look, Marking, Prop, Road, StreetKind, Strip
from .solids import Colour, Span

# probabilities of city, residential and country streets
_KINDS = ((0.40, StreetKind(0.9, 0.25, True)), (0.38, StreetKind(0.5, 0.8, True)), (0.22, StreetKind(0.06, 1.0, False)))
_BAY_M = 2.2
_PLASTER: tuple[Colour, ...] = (
    *((0.86, 0.90, 0.92), (0.70, 0.82, 0.90), (0.62, 0.72, 0.84), (0.78, 0.80, 0.80)),
    *((0.60, 0.66, 0.78), (0.55, 0.55, 0.80), (0.80, 0.76, 0.66), (0.95, 0.95, 0.95)),
)


def random_kind(rng: np.random.Generator) -> StreetKind:
    """City, residential or country."""
    return _KINDS[int(rng.choice(len(_KINDS), p=[share for share, _ in _KINDS]))][1]


def random_ground(rng: np.random.Generator) -> Ground:
    """KITTI's camera is 1.65 m above the road; the car pitches and rolls a little."""
    return Ground(height=rng.normal(1.65, 0.04), roll=rng.normal(0, 0.006), pitch=rng.normal(0, 0.007))


def random_road(rng: np.random.Generator, kind: StreetKind, yaw: float | None = None, cover: Span = (0, 0)) -> Road:
    """Lanes around the camera's own one, parking strips, pavements or verges.

    ``yaw`` [rad]: replaces the random direction and makes the road straight; ``cover``: laterals [m] that the
    carriageway reaches at least.
    """
    width = rng.uniform(3.0, 3.6)
    oncoming, extra = int(rng.choice([1, 1, 1, 2])), int(rng.choice([0, 0, 0, 1]))
    lanes = [(width * i, 1) for i in range(extra + 1)] + [(-width * i, -1) for i in range(1, oncoming + 1)]
    left, right = -width * (oncoming + 0.5), width * (extra + 0.5)
    parking = []
    chance = 0.6 if kind.pavement else 0.12
    if rng.random() < chance:
        parking.append((left - 0.5 * _BAY_M, -1))
        left -= _BAY_M
    if rng.random() < chance:
        parking.append((right + 0.5 * _BAY_M, 1))
        right += _BAY_M
    left, right = min(left, cover[0]), max(right, cover[1])
    x0, random_yaw, curve = rng.normal(0, 0.25), rng.normal(0, 0.02), rng.normal(0, 0.0007)
    yaw, curve = (random_yaw, curve) if yaw is None else (math.tan(yaw), 0.0)
    strips = _strips(rng, kind, left, right)
    markings = _markings(rng, width, oncoming, extra, (left, right), bool(parking))
    return Road(kind, x0, yaw, curve, tuple(lanes), tuple(parking), strips, markings, left, right)


def _strips(rng: np.random.Generator, kind: StreetKind, left: float, right: float) -> tuple[Strip, ...]:
    """The cross-section from left to right; both sides of the road have the same bands."""

    def grey(low: float, high: float) -> Colour:
        return tuple((rng.uniform(low, high) * rng.uniform(0.95, 1.05, 3)).tolist())

    brightness = rng.uniform(0.8, 1.2)
    grass = (0.13 * brightness, rng.uniform(0.28, 0.38) * brightness, rng.uniform(0.22, 0.34) * brightness)
    road, kerb, path = grey(0.26, 0.42), grey(0.50, 0.62), grey(0.38, 0.55)
    paving = str(rng.choice(["brick", "asphalt"]))
    if kind.pavement:
        verge = rng.uniform(0.8, 2.5) if rng.random() < 0.4 else 0.02
        wide = rng.uniform(1.6, 3.2)
        bands = [(0.2, "asphalt", kerb), (verge, "grass", grass), (wide, paving, path)]
        beyond = ("grass", grass) if kind.houses < 0.8 else (paving, path)
    else:
        bands, beyond = [(rng.uniform(0.3, 1.2), "asphalt", path)], ("grass", grass)
    widths, surfaces = [width for width, _, _ in bands], [(material, colour) for _, material, colour in bands]
    lefts, rights = [*accumulate(widths, sub, initial=left)], [*accumulate(widths, add, initial=right)]
    across = [beyond, *surfaces[::-1], ("asphalt", road), *surfaces, beyond]
    return tuple(Strip(end, *surface) for end, surface in zip([*lefts[::-1], *rights, 200.0], across, strict=True))


def _markings(
    rng: np.random.Generator, width: float, oncoming: int, extra: int, kerbs: Span, parked: bool
) -> tuple[Marking, ...]:
    """``width``: of a lane [m]; ``oncoming``, ``extra``: number of lanes to the left and right of the camera's own."""
    if rng.random() < 0.15:
        return ()  # small streets have no paint
    lines = [Marking(-0.5 * width, 0.14, float(rng.choice([0.0, 3.0, 4.0, 6.0])))]
    between = [-width * (i + 0.5) for i in range(1, oncoming)] + [width * (i + 0.5) for i in range(extra)]
    lines += [Marking(lateral, 0.12, 3.0) for lateral in between]
    if rng.random() < 0.7:
        if parked:
            lines.append(Marking(width * (extra + 0.5) + 0.1, 0.12, 0.0))
        else:
            lines += [Marking(kerbs[0] + 0.25, 0.14, 0.0), Marking(kerbs[1] - 0.25, 0.14, 0.0)]
    return tuple(lines)


def random_lighting(rng: np.random.Generator) -> Lighting:
    """From overcast (ambient light only) to strong sun."""
    elevation, azimuth = math.radians(rng.uniform(28, 70)), rng.uniform(-math.pi, math.pi)
    level = math.cos(elevation)
    sun = (level * math.sin(azimuth), -math.sin(elevation), level * math.cos(azimuth))
    sunny, blue = rng.uniform(0, 1) ** 0.7, rng.uniform(0.75, 1.0)
    return Lighting(sun, 0.15 + 0.75 * sunny, 1.0 - 0.45 * sunny, (1.0, blue, blue * 0.9))


def random_look(rng: np.random.Generator) -> Look:
    """Sky colours and image sensor."""
    blue = rng.uniform(0.55, 1.0)
    overcast = rng.random() < 0.35
    warmth = rng.normal(0, 0.04)
    top, low = (0.88, 0.86, 0.84) if overcast else (0.98 * blue, 0.72 * blue, 0.50 * blue), (1.0, 0.97, 0.93)
    clouds, exposure, gamma = rng.uniform(0.2, 1.0), rng.uniform(0.75, 1.25), rng.uniform(0.8, 1.25)
    noise, blur = rng.uniform(1.0, 4.5), float(rng.choice([0.0, 0.0, 0.45, 0.6]))
    return Look(top, low, clouds, exposure, gamma, (1.0 - warmth, 1.0, 1.0 + warmth), noise, blur)


def random_props(rng: np.random.Generator, road: Road, objects: list[Object3d], reserved: Span) -> list[Prop]:
    """Props on both sides of the road. Houses are outside ``reserved``: laterals [m] between which objects may be."""
    props: list[Prop] = []
    for side, edge, kerb in ((-1, reserved[0], road.left), (1, reserved[1], road.right)):
        props += _houses(rng, road, side, edge)
        props += _trees(rng, road, side, edge, kerb)
        props += _posts(rng, road, side, kerb)
    taken = [(item.location_cam[::2], 0.5 * math.hypot(*item.dimensions[1:]) + 0.4) for item in objects]
    return [p for p in props if p.kind == "house" or all(math.dist((p.x, p.z), at) > reach for at, reach in taken)]


def _houses(rng: np.random.Generator, road: Road, side: int, edge: float) -> list[Prop]:
    """A row of houses along the street, with gaps."""
    houses = []
    city = road.kind.houses > 0.8
    z = rng.uniform(-8, 10)
    setback = rng.uniform(0.5, 2.0) if city else rng.uniform(3, 9)
    while z < 95:
        length = float(rng.choice([9.0, 12.0, 15.0, 20.0]))
        if rng.random() < road.kind.houses:
            lateral = edge + side * (setback + rng.uniform(0, 0.8))
            storeys = int(rng.choice([2, 2, 3, 4] if city else [1, 2, 2]))
            height, variant = round(0.8 + 2.9 * storeys, 1), int(rng.integers(8))
            colour, end = _PLASTER[int(rng.integers(8))], (road.x_at(lateral, z + length), z + length)
            houses.append(Prop("house", road.x_at(lateral, z), z, height, variant, colour, end))
        z += length + (rng.uniform(0, 1.5) if city else rng.uniform(3, 14))
    return houses


def _trees(rng: np.random.Generator, road: Road, side: int, edge: float, kerb: float) -> list[Prop]:
    """Street trees near the kerb; outside cities, bushes and trees also behind the reserved strip."""
    trees = []
    avenue = rng.random() < 0.5 * road.kind.trees
    z = rng.uniform(5, 18)
    while avenue and z < 100:
        x = road.x_at(kerb + side * rng.uniform(1.0, 1.6), z)
        trees.append(Prop("tree", x, z, rng.uniform(5, 9), int(rng.integers(16))))
        z += rng.uniform(8, 16)
    if road.kind.houses < 0.8:
        for _ in range(int(rng.poisson(15 * road.kind.trees))):
            z = rng.uniform(8, 110)
            x = road.x_at(edge + side * rng.uniform(1.5, 18), z)
            kind, low, high = ("bush", 2.0, 4.5) if rng.random() < 0.45 else ("tree", 6, 13)
            trees.append(Prop(kind, x, z, rng.uniform(low, high), int(rng.integers(16))))
    return trees


def _posts(rng: np.random.Generator, road: Road, side: int, kerb: float) -> list[Prop]:
    """Street lamps at regular distances, some signs and thin poles."""
    posts = []
    if rng.random() < 0.5:
        z, step = rng.uniform(8, 25), rng.uniform(20, 32)
        while z < 100:
            x = road.x_at(kerb + side * 0.7, z)
            posts.append(Prop("lamp", x, z, 7.0, 1 if side > 0 else 0, (0.42, 0.42, 0.42)))
            z += step
    for _ in range(int(rng.poisson(1.3))):
        z = rng.uniform(7, 60)
        x = road.x_at(kerb + side * rng.uniform(0.5, 1.0), z)
        kind, low, high = ("sign", 2.3, 2.8) if rng.random() < 0.7 else ("pole", 3, 8)
        posts.append(Prop(kind, x, z, rng.uniform(low, high), int(rng.integers(16)), (0.45, 0.45, 0.45)))
    return posts
