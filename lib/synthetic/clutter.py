"""Random houses, trees, lamps and signs along a road."""

from __future__ import annotations

import math

import numpy as np

from ..structures import Object3d
from .scene import Prop, Road
from .street import Kind

_PLASTER = (
    (0.86, 0.90, 0.92),
    (0.70, 0.82, 0.90),
    (0.62, 0.72, 0.84),
    (0.78, 0.80, 0.80),
    (0.60, 0.66, 0.78),
    (0.55, 0.55, 0.80),
    (0.80, 0.76, 0.66),
    (0.95, 0.95, 0.95),
)


def random_props(
    rng: np.random.Generator, kind: Kind, road: Road, objects: list[Object3d], reserved: tuple[float, float]
) -> list[Prop]:
    """Clutter on both sides. ``reserved``: laterals [m] between which labelled objects may stand; houses keep out."""
    props: list[Prop] = []
    for side, edge in ((-1, reserved[0]), (1, reserved[1])):
        props += _houses(rng, kind, road, side, edge)
        props += _trees(rng, kind, road, side, edge)
        props += _posts(rng, road, side)
    ground_points = np.array([(o.location_cam[0], o.location_cam[2]) for o in objects]).reshape(-1, 2)
    sizes = np.array([0.5 * math.hypot(*o.dimensions[1:]) for o in objects])

    def is_free(prop: Prop) -> bool:
        if prop.kind == "house" or len(sizes) == 0:
            return True
        return bool((np.hypot(*(ground_points - (prop.x, prop.z)).T) > sizes + 0.4).all())

    return [prop for prop in props if is_free(prop)]


def _houses(rng: np.random.Generator, kind: Kind, road: Road, side: int, edge: float) -> list[Prop]:
    """A row of houses along the street, with gaps."""
    houses = []
    z = rng.uniform(-8, 10)
    setback = rng.uniform(0.5, 2.0) if kind.houses > 0.8 else rng.uniform(3, 9)
    while z < 95:
        length = float(rng.choice([9.0, 12.0, 15.0, 20.0]))
        if rng.random() < kind.houses:
            lateral = edge + side * (setback + rng.uniform(0, 0.8))
            start, end = (road.x_at(lateral, z), z), (road.x_at(lateral, z + length), z + length)
            storeys = int(rng.choice([2, 2, 3, 4])) if kind.houses > 0.8 else int(rng.choice([1, 2, 2]))
            houses.append(
                Prop(
                    kind="house",
                    x=start[0],
                    z=start[1],
                    size=round(0.8 + 2.9 * storeys, 1),
                    variant=int(rng.integers(8)),
                    colour=_PLASTER[int(rng.integers(len(_PLASTER)))],
                    end=end,
                )
            )
        z += length + (float(rng.uniform(0, 1.5)) if kind.houses > 0.8 else float(rng.uniform(3, 14)))
    return houses


def _trees(rng: np.random.Generator, kind: Kind, road: Road, side: int, edge: float) -> list[Prop]:
    """Street trees near the kerb, and bushes and trees behind the reserved strip where no houses stand."""
    kerb = road.left if side < 0 else road.right
    trees = []
    avenue = rng.random() < 0.5 * kind.trees
    z = rng.uniform(5, 18)
    while avenue and z < 100:
        lateral = kerb + side * rng.uniform(1.0, 1.6)
        trees.append(Prop("tree", road.x_at(lateral, z), z, float(rng.uniform(5, 9)), int(rng.integers(16))))
        z += rng.uniform(8, 16)
    if kind.houses < 0.8:
        for _ in range(int(rng.poisson(15 * kind.trees))):
            z = float(rng.uniform(8, 110))
            lateral = edge + side * rng.uniform(1.5, 18)
            bush = rng.random() < 0.45
            size = float(rng.uniform(2.0, 4.5) if bush else rng.uniform(6, 13))
            kind_name = "bush" if bush else "tree"
            trees.append(Prop(kind_name, road.x_at(lateral, z), z, size, int(rng.integers(16))))
    return trees


def _posts(rng: np.random.Generator, road: Road, side: int) -> list[Prop]:
    """Street lamps at regular distances, some signs and thin poles."""
    kerb = road.left if side < 0 else road.right
    posts = []
    if rng.random() < 0.5:
        z, step = rng.uniform(8, 25), rng.uniform(20, 32)
        while z < 100:
            x = road.x_at(kerb + side * 0.7, z)
            posts.append(Prop("lamp", x, z, 7.0, 1 if side > 0 else 0, (0.42, 0.42, 0.42)))
            z += step
    for _ in range(int(rng.poisson(1.3))):
        z = float(rng.uniform(7, 60))
        x = road.x_at(kerb + side * rng.uniform(0.5, 1.0), z)
        kind = "sign" if rng.random() < 0.7 else "pole"
        size = float(rng.uniform(2.3, 2.8) if kind == "sign" else rng.uniform(3, 8))
        posts.append(Prop(kind, x, z, size, int(rng.integers(16)), (0.45, 0.45, 0.45)))
    return posts
