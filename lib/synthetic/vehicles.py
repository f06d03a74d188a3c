"""Cars and vans as shaded solids. Unit coordinates: see ``solids``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .solids import Colour, Solid, SolidBuilder, sub_quad
from .vehicle_parts import (
    BODY,
    BODY_DETAIL,
    CABIN,
    GLASS,
    GLASS_COLOUR,
    HEADLIGHT_COLOUR,
    PLATE_COLOUR,
    TAIL_LIGHT_COLOUR,
    TRIM_COLOUR,
    add_wheels,
    end_quad,
    side_quad,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Outline of a passenger vehicle, in unit coordinates."""

    belt: float
    """up, where the windows begin"""
    bonnet: float
    """up, front edge of the bonnet"""
    screen: tuple[float, float]
    """along: foot and top of the windscreen"""
    rear: tuple[float, float]
    """along: foot and top of the rear window"""
    deck: float
    """up, rear end of the body (boot lid)"""
    clearance: float
    """up, lower edge of the body"""
    roof_width: float
    """share of the full width"""
    wheel_radius_m: float
    usual_height_m: float
    """height to which the wheel's radius belongs"""
    side_windows: tuple[tuple[float, float], ...]
    """spans between the rear and the front edge of the side wall"""


CAR_SHAPES = {
    "hatchback": Shape(
        0.60, 0.50, (0.24, 0.05), (-0.485, -0.40), 0.58, 0.13, 0.72, 0.31, 1.47, ((0.10, 0.46), (0.50, 0.90))
    ),
    "saloon": Shape(
        0.62, 0.50, (0.21, 0.03), (-0.33, -0.20), 0.61, 0.13, 0.70, 0.32, 1.45, ((0.12, 0.48), (0.52, 0.90))
    ),
    "estate": Shape(
        0.61,
        0.50,
        (0.22, 0.04),
        (-0.49, -0.44),
        0.60,
        0.13,
        0.73,
        0.32,
        1.50,
        ((0.05, 0.30), (0.33, 0.60), (0.63, 0.91)),
    ),
    "suv": Shape(
        0.60,
        0.55,
        (0.23, 0.09),
        (-0.49, -0.43),
        0.60,
        0.17,
        0.78,
        0.37,
        1.70,
        ((0.05, 0.30), (0.33, 0.60), (0.63, 0.92)),
    ),
    "compact": Shape(
        0.58, 0.48, (0.32, 0.10), (-0.49, -0.42), 0.57, 0.14, 0.74, 0.29, 1.50, ((0.10, 0.48), (0.53, 0.90))
    ),
}
VAN_SHAPES = {
    "minibus": Shape(
        0.52,
        0.47,
        (0.36, 0.22),
        (-0.495, -0.47),
        0.52,
        0.11,
        0.86,
        0.34,
        2.00,
        ((0.04, 0.32), (0.35, 0.62), (0.65, 0.94)),
    ),
    "delivery": Shape(0.50, 0.45, (0.37, 0.22), (-0.495, -0.485), 0.50, 0.11, 0.90, 0.34, 2.20, ((0.72, 0.95),)),
}


def passenger_vehicle(dimensions: tuple[float, float, float], shape: Shape, paint: Colour) -> Solid:
    """A car or van. ``dimensions``: (h, w, l) [m]; ``paint``: BGR, 0..1."""
    height, width, length = dimensions
    # a few proportions per shape, stretched to the exact size: wheels stay round within a few per cent
    proportions = (1.5, 1.65, round(length / height * 4) / 4 * 1.5)
    dark, light = _template(shape, proportions)
    stretch = np.array([length, height, width]) / (proportions[2], proportions[0], proportions[1])
    normals = dark.normals / stretch
    return Solid(
        corners=dark.corners * stretch,
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
        # colours are linear in the paint, so two paintings of the template give all others
        colours=dark.colours + (light.colours - dark.colours) * np.asarray(paint),
        gloss=dark.gloss,
        layers=dark.layers,
        part_centres=dark.part_centres * stretch,
    )


@lru_cache(maxsize=128)
def _template(shape: Shape, dimensions: tuple[float, float, float]) -> tuple[Solid, Solid]:
    """A vehicle of this shape painted black and painted white."""
    painted = []
    for paint in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
        builder = SolidBuilder(dimensions)
        radius = shape.wheel_radius_m * dimensions[0] / shape.usual_height_m
        add_wheels(builder, radius, (-0.31, 0.33), shape.clearance)
        _add_body(builder, shape, paint)
        _add_lights(builder, shape)
        _add_cabin(builder, shape, paint)
        painted.append(builder.build())
    return painted[0], painted[1]


def _add_body(builder: SolidBuilder, shape: Shape, paint: Colour) -> None:
    """The part below the windows: cross-sections from rear to front, narrower and rounder at both ends."""
    c, belt = shape.clearance, shape.belt
    # along, width share, lower edge, upper edge
    stations = np.array(
        [
            (-0.500, 0.76, c + 0.08, shape.deck - 0.12),
            (-0.485, 0.92, c + 0.02, shape.deck - 0.03),
            (-0.430, 0.98, c, shape.deck),
            (-0.300, 1.00, c, max(shape.deck, belt - 0.01)),
            (0.200, 1.00, c, belt),
            (0.300, 1.00, c, 0.35 * belt + 0.65 * (shape.bonnet + 0.06)),
            (0.420, 0.97, c, shape.bonnet + 0.02),
            (0.475, 0.90, c + 0.01, shape.bonnet - 0.03),
            (0.500, 0.72, c + 0.06, shape.bonnet - 0.12),
        ]
    )
    # the ring: width factor and height share of each corner, right side upwards, then left side downwards
    ring = ((0.93, 0.0), (0.99, 0.18), (1.00, 0.60), (0.95, 0.88), (0.84, 1.0))
    profile = [*((-w, t) for w, t in ring), *((w, t) for w, t in reversed(ring))]
    along, width, low, high = stations.T
    rings = np.stack([np.stack([along, low + t * (high - low), 0.5 * width * w], axis=1) for w, t in profile], axis=1)
    dark = tuple(0.35 * v for v in paint)
    strips = np.array([dark, paint, paint, paint, paint, paint, paint, paint, dark, TRIM_COLOUR])
    builder.loft(rings, strips, BODY, gloss=1.0)
    _add_body_trim(builder, shape)


def _add_body_trim(builder: SolidBuilder, shape: Shape) -> None:
    """Door gaps, grille, bumpers and number plates."""
    low, high = shape.clearance + 0.05, shape.belt - 0.06
    for side in (-0.502, 0.502):
        for along in (-0.16, 0.06, 0.235):
            builder.add(side_quad((along, along + 0.006), (low, high), side), TRIM_COLOUR, (0, 0.4, 0), BODY_DETAIL)
    front, c = shape.bonnet, shape.clearance
    builder.add(end_quad(0.501, (c + 0.16, front - 0.13), 0.22), TRIM_COLOUR, (0, 0.4, 0), BODY_DETAIL, 0.5)
    builder.add(end_quad(0.499, (c + 0.06, c + 0.11), 0.30), TRIM_COLOUR, (0, 0.4, 0), BODY_DETAIL)
    builder.add(end_quad(-0.499, (c + 0.08, c + 0.13), 0.34), TRIM_COLOUR, (0, 0.4, 0), BODY_DETAIL)
    plate = 0.26 / builder.width
    plate_up = 0.11 / builder.height
    builder.add(end_quad(0.502, (c + 0.12, c + 0.12 + plate_up), plate), PLATE_COLOUR, (0, 0.4, 0), BODY_DETAIL)
    rear = 0.5 * (c + shape.deck)
    builder.add(end_quad(-0.502, (rear, rear + plate_up), plate), PLATE_COLOUR, (0, 0.4, 0), BODY_DETAIL)


def _add_lights(builder: SolidBuilder, shape: Shape) -> None:
    """White lamps at the front, red ones at the rear: what tells the two ends apart."""
    front, rear = shape.bonnet - 0.04, shape.deck - 0.06
    for sign in (-1, 1):
        lamp = [
            (0.500, front, 0.26),
            (0.478, front + 0.01, 0.44),
            (0.478, front - 0.09, 0.45),
            (0.502, front - 0.09, 0.28),
        ]
        wrap = [
            (0.478, front + 0.01, 0.44),
            (0.43, front - 0.01, 0.485),
            (0.45, front - 0.08, 0.49),
            (0.478, front - 0.09, 0.45),
        ]
        tail = [(-0.497, rear, 0.29), (-0.478, rear, 0.455), (-0.482, rear - 0.14, 0.46), (-0.503, rear - 0.14, 0.30)]
        tail_wrap = [
            (-0.478, rear, 0.455),
            (-0.43, rear, 0.485),
            (-0.44, rear - 0.11, 0.49),
            (-0.482, rear - 0.14, 0.46),
        ]
        for quad, colour in (
            (lamp, HEADLIGHT_COLOUR),
            (wrap, HEADLIGHT_COLOUR),
            (tail, TAIL_LIGHT_COLOUR),
            (tail_wrap, TAIL_LIGHT_COLOUR),
        ):
            points = np.array(quad) * (1, 1, sign)
            builder.add(points[None], colour, (0, 0.4, 0), BODY_DETAIL, 0.6)


def _add_cabin(builder: SolidBuilder, shape: Shape, paint: Colour) -> None:
    """Roof, pillars and windows: a frustum on the belt line."""
    b, eave = shape.belt - 0.02, 0.955
    wide, narrow, crown = 0.45, 0.5 * shape.roof_width, 0.5 * shape.roof_width - 0.07
    (front_foot, front_top), (rear_foot, rear_top) = shape.screen, shape.rear
    base = [(rear_foot, b, -wide), (front_foot, b, -wide), (front_foot, b, wide), (rear_foot, b, wide)]
    edge = [(rear_top, eave, -narrow), (front_top, eave, -narrow), (front_top, eave, narrow), (rear_top, eave, narrow)]
    top_rear, top_front = rear_top + 0.03, front_top - 0.04
    top = [(top_rear, 1.0, -crown), (top_front, 1.0, -crown), (top_front, 1.0, crown), (top_rear, 1.0, crown)]
    builder.loft(np.array([base, edge, top]), paint, CABIN, gloss=1.0)
    right = np.array([base[0], base[1], edge[1], edge[0]])
    screen = np.array([base[1], base[2], edge[2], edge[1]])
    rear = np.array([base[3], base[0], edge[0], edge[3]])
    inside = (0.0, 0.7, 0.0)
    upper = 2.2 * np.array(GLASS_COLOUR)  # the sky in the upper half
    for quad, u, v in (
        (screen, (0.05, 0.95), (0.06, 0.95)),
        (rear, (0.07, 0.93), (0.16, 0.90)),
        *((right, span, (0.10, 0.90)) for span in shape.side_windows),
        *((right * (1, 1, -1), span, (0.10, 0.90)) for span in shape.side_windows),
    ):
        split = v[0] + 0.55 * (v[1] - v[0])
        builder.add(sub_quad(quad, u, (v[0], split)), GLASS_COLOUR, inside, GLASS, 1.0)
        builder.add(sub_quad(quad, u, (split, v[1])), upper, inside, GLASS, 1.0)
