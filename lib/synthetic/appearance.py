"""From a KITTI type and a pose to a solid: shapes and colours, drawn independently of where the object stands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..structures import Object3d
from .heavy_vehicles import trailer, tram, truck
from .people import Clothes, cyclist, pedestrian, sitting_person
from .solids import Colour, Solid
from .vehicles import CAR_SHAPES, VAN_SHAPES, Shape, passenger_vehicle

Size = tuple[float, float, float]
"""(height, width, length) [m]"""

# BGR; roughly what stands in a German street: white, silver, greys and black, then blue, red, green, ochre
_PAINTS: tuple[tuple[float, Colour], ...] = (
    (0.16, (0.85, 0.86, 0.86)),
    (0.18, (0.62, 0.62, 0.61)),
    (0.14, (0.34, 0.34, 0.34)),
    (0.16, (0.09, 0.09, 0.09)),
    (0.12, (0.42, 0.20, 0.09)),
    (0.10, (0.12, 0.12, 0.55)),
    (0.05, (0.20, 0.36, 0.16)),
    (0.05, (0.15, 0.50, 0.72)),
    (0.04, (0.55, 0.42, 0.18)),
)
_SKIN: tuple[Colour, ...] = ((0.52, 0.63, 0.82), (0.42, 0.54, 0.74), (0.22, 0.32, 0.48))
_HAIR: tuple[Colour, ...] = ((0.06, 0.07, 0.09), (0.10, 0.16, 0.26), (0.30, 0.45, 0.58), (0.55, 0.55, 0.55))


def paint_colour(rng: np.random.Generator) -> Colour:
    """A car colour, BGR."""
    shares = np.array([share for share, _ in _PAINTS])
    base = np.array(_PAINTS[int(rng.choice(len(_PAINTS), p=shares / shares.sum()))][1])
    b, g, r = np.clip(base * rng.uniform(0.8, 1.2) + rng.uniform(-0.02, 0.02, 3), 0.03, 0.95)
    return float(b), float(g), float(r)


def clothes(rng: np.random.Generator) -> Clothes:
    """Random clothes, skin and hair."""

    def cloth(low: float, high: float) -> Colour:
        b, g, r = rng.uniform(low, high) * rng.uniform(0.6, 1.0, 3)
        return float(b), float(g), float(r)

    skin, hair = _SKIN[int(rng.integers(len(_SKIN)))], _HAIR[int(rng.integers(len(_HAIR)))]
    return Clothes(shirt=cloth(0.1, 0.9), trousers=cloth(0.08, 0.5), skin=skin, hair=hair)


def solid_of(item: Object3d, rng: np.random.Generator) -> Solid:
    """A random solid of the object's type that fills its box. Raises ValueError for a type that is not an object."""
    h, w, length = item.dimensions
    size = (max(h, 0.05), max(w, 0.05), max(length, 0.05))
    build = _BUILDERS.get(item.type)
    if build is None:
        raise ValueError(f"cannot render type {item.type!r}; known: {', '.join(OBJECT_TYPES)}")
    return build(size, rng)


def _car(size: Size, rng: np.random.Generator) -> Solid:
    return passenger_vehicle(size, _car_shape(size, rng), paint_colour(rng))


def _van(size: Size, rng: np.random.Generator) -> Solid:
    return passenger_vehicle(size, VAN_SHAPES[str(rng.choice(list(VAN_SHAPES)))], paint_colour(rng))


def _car_shape(size: Size, rng: np.random.Generator) -> Shape:
    """A shape that suits the size: tall cars are SUVs, short ones compacts, the rest as it comes."""
    height, _, length = size
    names = ["hatchback", "saloon", "saloon", "estate"]
    if length < 3.6:
        names = ["compact", "hatchback"]
    elif height > 1.62:
        names = ["suv", "estate"]
    return CAR_SHAPES[str(rng.choice(names))]


_BUILDERS: dict[str, Callable[[Size, np.random.Generator], Solid]] = {
    "Car": _car,
    "Van": _van,
    "Truck": lambda size, rng: truck(size, paint_colour(rng), paint_colour(rng)),
    "Tram": lambda size, rng: tram(size, paint_colour(rng), paint_colour(rng)),
    "Misc": lambda size, rng: trailer(size, paint_colour(rng)),
    "Pedestrian": lambda size, rng: pedestrian(size, clothes(rng), bool(rng.random() < 0.5)),
    "Person_sitting": lambda size, rng: sitting_person(size, clothes(rng)),
    "Cyclist": lambda size, rng: cyclist(size, clothes(rng), paint_colour(rng)),
}
OBJECT_TYPES = tuple(_BUILDERS)
