"""From a KITTI type and dimensions to a solid with random shape and colours, independent of the object's pose."""

from collections.abc import Callable

import numpy as np

from ..structures import Object3d
from .people import Clothes, cyclist, pedestrian, sitting_person
from .solids import Colour, Size, Solid
from .vehicles import CAR_SHAPES, VAN_SHAPES, passenger_vehicle, trailer, tram, truck

# share of the vehicles, BGR: white, greys and black, then blue, red, green, ochre and turquoise
_PAINTS = (
    (0.16, 0.85, 0.86, 0.86),
    (0.18, 0.62, 0.62, 0.61),
    (0.14, 0.34, 0.34, 0.34),
    (0.16, 0.09, 0.09, 0.09),
    (0.12, 0.42, 0.20, 0.09),
    (0.10, 0.12, 0.12, 0.55),
    (0.05, 0.20, 0.36, 0.16),
    (0.05, 0.15, 0.50, 0.72),
    (0.04, 0.55, 0.42, 0.18),
)
_SKIN: tuple[Colour, ...] = ((0.52, 0.63, 0.82), (0.42, 0.54, 0.74), (0.22, 0.32, 0.48))
_HAIR: tuple[Colour, ...] = ((0.06, 0.07, 0.09), (0.10, 0.16, 0.26), (0.30, 0.45, 0.58), (0.55, 0.55, 0.55))


def build_solid(item: Object3d, rng: np.random.Generator) -> Solid:
    """A random solid of the object's type that fills its box. Raises ValueError for a type that is not an object."""
    build = _BUILDERS.get(item.type)
    if build is None:
        raise ValueError(f"cannot render type {item.type!r}; known: {', '.join(OBJECT_TYPES)}")
    height, width, length = (max(extent, 0.05) for extent in item.dimensions)
    return build((height, width, length), rng)


def _paint(rng: np.random.Generator) -> Colour:
    paints = np.array(_PAINTS)
    base = paints[int(rng.choice(len(paints), p=paints[:, 0] / paints[:, 0].sum())), 1:]
    return tuple(np.clip(base * rng.uniform(0.8, 1.2) + rng.uniform(-0.02, 0.02, 3), 0.03, 0.95).tolist())


def _clothes(rng: np.random.Generator) -> Clothes:
    skin, hair = _SKIN[int(rng.integers(len(_SKIN)))], _HAIR[int(rng.integers(len(_HAIR)))]
    shirt, trousers = (
        tuple((rng.uniform(low, high) * rng.uniform(0.6, 1.0, 3)).tolist()) for low, high in ((0.1, 0.9), (0.08, 0.5))
    )
    return Clothes(shirt, trousers, skin, hair)


def _car(size: Size, rng: np.random.Generator) -> Solid:
    """Tall cars are SUVs or estates, short ones compacts or hatchbacks."""
    height, _, length = size
    names = ["suv", "estate"] if height > 1.62 else ["hatchback", "saloon", "saloon", "estate"]
    if length < 3.6:
        names = ["compact", "hatchback"]
    return passenger_vehicle(size, CAR_SHAPES[str(rng.choice(names))], _paint(rng))


_BUILDERS: dict[str, Callable[[Size, np.random.Generator], Solid]] = {
    "Car": _car,
    "Van": lambda size, rng: passenger_vehicle(size, VAN_SHAPES[str(rng.choice(list(VAN_SHAPES)))], _paint(rng)),
    "Truck": lambda size, rng: truck(size, _paint(rng), _paint(rng)),
    "Tram": lambda size, rng: tram(size, _paint(rng), _paint(rng)),
    "Misc": lambda size, rng: trailer(size, _paint(rng)),
    "Pedestrian": lambda size, rng: pedestrian(size, _clothes(rng), bool(rng.random() < 0.5)),
    "Person_sitting": lambda size, rng: sitting_person(size, _clothes(rng)),
    "Cyclist": lambda size, rng: cyclist(size, _clothes(rng), _paint(rng)),
}
OBJECT_TYPES = tuple(_BUILDERS)  # all of KITTI's types except DontCare
