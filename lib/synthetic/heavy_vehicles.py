"""Lorries, trams and trailers as solids. Unit coordinates: see ``solids``."""

from itertools import pairwise

import numpy as np

from . import vehicle_parts as part
from .solids import Colour, Size, Solid, SolidBuilder, end_quad, points, side_quad

_MIDDLE = (0, 0.5, 0)


def truck(dimensions: Size, paint: Colour, cargo: Colour) -> Solid:
    """A lorry: cab, chassis and cargo box."""
    builder = SolidBuilder(dimensions)
    cab = min(0.45, 2.1 / builder.length)
    floor = 0.95 / builder.height
    joint = 0.5 - cab
    part.add_wheels(builder, 0.48, (-0.40, -0.28, joint + 0.45 * cab), floor * 0.6, 0.3)
    builder.box((-0.5, joint), (floor * 0.55, floor), (-0.42, 0.42), part.TRIM_COLOUR, part.TYRES)
    builder.box((-0.5, joint - 0.02), (floor, 1.0), (-0.5, 0.5), cargo, part.BODY)
    builder.box((-0.503, -0.50), (floor * 0.75, floor), (-0.45, 0.45), (0.2, 0.2, 0.2), part.BODY)
    low, top = floor * 0.45, min(0.96, 2.9 / builder.height)
    # towards the front: the roof is narrower than the floor, and the lower edge of the front is rounded
    across, feet = np.array([-0.48, 0.48, 0.46, -0.46]), ((joint, low), (0.49, low), (0.5, low + 0.02))
    builder.loft([points(x, np.array([up, up, top, top]), across) for x, up in feet], paint, part.BODY, gloss=0.7)
    middle = 0.5 * (floor + top)
    inside = (0.5 - cab / 2, middle, 0.0)
    builder.add(end_quad(0.503, (middle, top - 0.03), (-0.40, 0.40)), part.GLASS_COLOUR, inside, part.GLASS, 1.0)
    builder.add(end_quad(0.503, (floor * 0.8, middle - 0.08), (-0.25, 0.25)), part.TRIM_COLOUR, inside, part.GLASS)
    window = side_quad((joint + 0.3 * cab, 0.48), (middle, top - 0.05), 0.49)
    builder.add_pair(window, part.GLASS_COLOUR, inside, part.GLASS, 1.0)
    _add_corner_lamps(builder, (floor * 0.6, floor * 0.75))
    return builder.build()


def tram(dimensions: Size, paint: Colour, accent: Colour) -> Solid:
    """A tram or bus with a row of windows."""
    builder = SolidBuilder(dimensions)
    builder.box((-0.46, 0.46), (0.0, 0.12), (-0.40, 0.40), part.TYRE_COLOUR, part.TYRES)
    half, along = np.array([0.42, 0.5, 0.5, 0.42]), np.array([-0.5, -0.47, 0.47, 0.5])
    profile = ((-1, 0.06), (-1, 0.40), (-0.97, 0.93), (-0.8, 1.0), (0.8, 1.0), (0.97, 0.93), (1, 0.40), (1, 0.06))
    rings = np.stack([points(along, t, half * w) for w, t in profile], axis=1)
    builder.loft(rings, np.array([accent, *[paint] * 5, accent, part.TRIM_COLOUR]), part.BODY, gloss=0.7)
    gap = 0.08 / builder.length
    edges = np.linspace(-0.46, 0.46, max(3, round(builder.length / 1.6)) + 1)
    panes = np.stack([side_quad((a + gap, b - gap), (0.45, 0.82), 0.497) for a, b in pairwise(edges)])
    builder.add_pair(panes, part.GLASS_COLOUR, _MIDDLE, part.BODY_DETAIL, 1.0)
    for end in (-0.502, 0.502):
        builder.add(end_quad(end, (0.45, 0.85), (-0.38, 0.38)), part.GLASS_COLOUR, _MIDDLE, part.BODY_DETAIL, 1.0)
    _add_corner_lamps(builder, (0.2, 0.27))
    return builder.build()


def trailer(dimensions: Size, paint: Colour) -> Solid:
    """A two-wheeled box trailer, for KITTI's Misc."""
    builder = SolidBuilder(dimensions)
    floor = min(0.35, 0.5 / builder.height)
    radius = min(0.3, 0.25 * builder.height, 0.2 * builder.length)
    part.add_wheels(builder, radius, (-0.05,), floor, 0.15)
    builder.box((-0.5, 0.36), (floor, 1.0), (-0.5, 0.5), paint, part.BODY, gloss=0.3)
    builder.tube((0.36, floor, 0.0), (0.5, floor, 0.0), (0.05, 0.04), part.TRIM_COLOUR, part.BODY)
    stripe = side_quad((-0.48, 0.34), (floor + 0.06, floor + 0.12), 0.502)
    builder.add_pair(stripe, part.TRIM_COLOUR, _MIDDLE, part.BODY_DETAIL)
    part.add_lamp_pair(builder, -0.502, (floor + 0.05, floor + 0.15), 0.4, part.TAIL_LIGHT_COLOUR)
    return builder.build()


def _add_corner_lamps(builder: SolidBuilder, up: tuple[float, float]) -> None:
    part.add_lamp_pair(builder, 0.504, up, 0.35, part.HEADLIGHT_COLOUR, part.GLASS)
    part.add_lamp_pair(builder, -0.504, up, 0.35, part.TAIL_LIGHT_COLOUR, part.GLASS)
