"""Lorries, trams and trailers as shaded solids. Unit coordinates: see ``solids``."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .solids import Colour, Solid, SolidBuilder
from .vehicle_parts import (
    BODY,
    BODY_DETAIL,
    GLASS,
    GLASS_COLOUR,
    TAIL_LIGHT_COLOUR,
    TRIM_COLOUR,
    TYRE_COLOUR,
    TYRES,
    add_corner_lamps,
    add_wheels,
    end_quad,
    side_quad,
)


def truck(dimensions: tuple[float, float, float], paint: Colour, cargo: Colour) -> Solid:
    """A lorry: cab, chassis and cargo box. ``dimensions``: (h, w, l) [m]."""
    builder = SolidBuilder(dimensions)
    cab = min(0.45, 2.1 / builder.length)
    floor = 0.95 / builder.height
    joint = 0.5 - cab
    add_wheels(builder, 0.48, (-0.40, -0.28, joint + 0.45 * cab), floor * 0.6, 0.3)
    builder.box((-0.5, joint), (floor * 0.55, floor), (-0.42, 0.42), TRIM_COLOUR, TYRES)
    builder.box((-0.5, joint - 0.02), (floor, 1.0), (-0.5, 0.5), cargo, BODY)
    builder.box((-0.503, -0.50), (floor * 0.75, floor), (-0.45, 0.45), (0.2, 0.2, 0.2), BODY)
    top = min(0.96, 2.9 / builder.height)
    ring = np.array([(floor * 0.45, -0.48), (floor * 0.45, 0.48), (top, 0.46), (top, -0.46)])
    rings = np.stack([np.column_stack([np.full(4, x), ring]) for x in (joint, 0.49, 0.5)])
    rings[2, :2, 1] += 0.02
    builder.loft(rings, paint, BODY, gloss=0.7)
    middle = 0.5 * (floor + top)
    inside = (0.5 - cab / 2, middle, 0.0)
    builder.add(end_quad(0.503, (middle, top - 0.03), 0.40), GLASS_COLOUR, inside, GLASS, 1.0)
    builder.add(end_quad(0.503, (floor * 0.8, middle - 0.08), 0.25), TRIM_COLOUR, inside, GLASS)
    for side in (-0.49, 0.49):
        builder.add(side_quad((joint + 0.3 * cab, 0.48), (middle, top - 0.05), side), GLASS_COLOUR, inside, GLASS, 1.0)
    add_corner_lamps(builder, (floor * 0.6, floor * 0.75))
    return builder.build()


def tram(dimensions: tuple[float, float, float], paint: Colour, accent: Colour) -> Solid:
    """A tram or bus-like body with a row of windows. ``dimensions``: (h, w, l) [m]."""
    builder = SolidBuilder(dimensions)
    builder.box((-0.46, 0.46), (0.0, 0.12), (-0.40, 0.40), TYRE_COLOUR, TYRES)
    half = np.array([0.42, 0.5, 0.5, 0.42])
    along = np.array([-0.5, -0.47, 0.47, 0.5])
    profile = ((-1, 0.06), (-1, 0.40), (-0.97, 0.93), (-0.8, 1.0), (0.8, 1.0), (0.97, 0.93), (1, 0.40), (1, 0.06))
    rings = np.stack([np.stack([along, np.full(4, t), half * w], axis=1) for w, t in profile], axis=1)
    strips = np.array([accent, paint, paint, paint, paint, paint, accent, TRIM_COLOUR])
    builder.loft(rings, strips, BODY, gloss=0.7)
    count = max(3, round(builder.length / 1.6))
    edges = np.linspace(-0.46, 0.46, count + 1)
    for side in (-0.497, 0.497):
        for left, right in pairwise(edges):
            pane = side_quad((left + 0.08 / builder.length, right - 0.08 / builder.length), (0.45, 0.82), side)
            builder.add(pane, GLASS_COLOUR, (0, 0.5, 0), BODY_DETAIL, 1.0)
    for end in (-0.502, 0.502):
        builder.add(end_quad(end, (0.45, 0.85), 0.38), GLASS_COLOUR, (0, 0.5, 0), BODY_DETAIL, 1.0)
    add_corner_lamps(builder, (0.2, 0.27))
    return builder.build()


def trailer(dimensions: tuple[float, float, float], paint: Colour) -> Solid:
    """A two-wheeled box trailer: stands in for KITTI's Misc. ``dimensions``: (h, w, l) [m]."""
    builder = SolidBuilder(dimensions)
    floor = min(0.35, 0.5 / builder.height)
    radius = min(0.3, 0.25 * builder.height, 0.2 * builder.length)
    add_wheels(builder, radius, (-0.05,), floor, 0.15)
    builder.box((-0.5, 0.36), (floor, 1.0), (-0.5, 0.5), paint, BODY, gloss=0.3)
    builder.tube((0.36, floor, 0.0), (0.5, floor, 0.0), (0.05, 0.04), TRIM_COLOUR, BODY)
    for side in (-0.502, 0.502):
        stripe = side_quad((-0.48, 0.34), (floor + 0.06, floor + 0.12), side)
        builder.add(stripe, TRIM_COLOUR, (0, 0.5, 0), BODY_DETAIL)
    for sign in (-1, 1):
        lamp = end_quad(-0.502, (floor + 0.05, floor + 0.15), 0.06) + np.array([0.0, 0.0, sign * 0.4])
        builder.add(lamp, TAIL_LIGHT_COLOUR, (0, 0.5, 0), BODY_DETAIL, 0.5)
    return builder.build()
