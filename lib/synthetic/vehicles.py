"""Cars and vans as solids. Unit coordinates: see ``solids``."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from . import vehicle_parts as part
from .solids import Colour, Size, Solid, SolidBuilder, Span, band, end_quad, level_quad, points, side_quad, sub_quad

_INSIDE = (0, 0.4, 0)


@dataclass(frozen=True, slots=True)
class Shape:
    """Outline of a passenger vehicle, in unit coordinates."""

    belt: float  # up, lower edge of the windows
    bonnet: float  # up, front edge of the bonnet
    deck: float  # up, rear end of the body (boot lid)
    clearance: float  # up, lower edge of the body
    screen: Span  # along: foot and top of the windscreen
    rear: Span  # along: foot and top of the rear window
    roof_width: float  # share of the full width
    wheel_radius_m: float
    usual_height_m: float  # vehicle height to which the wheel's radius belongs
    windows: tuple[float, ...]  # rear and front edges of the side windows, as shares of the side wall


# belt, bonnet, deck, clearance, windscreen, rear window, roof width, wheel radius, usual height, side windows
_ESTATE_PANES = (0.05, 0.3, 0.33, 0.6, 0.63)
CAR_SHAPES = {
    "hatchback": Shape(0.6, 0.5, 0.58, 0.13, (0.24, 0.05), (-0.485, -0.4), 0.72, 0.31, 1.47, (0.1, 0.46, 0.5, 0.9)),
    "saloon": Shape(0.62, 0.5, 0.61, 0.13, (0.21, 0.03), (-0.33, -0.2), 0.7, 0.32, 1.45, (0.12, 0.48, 0.52, 0.9)),
    "estate": Shape(0.61, 0.5, 0.6, 0.13, (0.22, 0.04), (-0.49, -0.44), 0.73, 0.32, 1.5, (*_ESTATE_PANES, 0.91)),
    "suv": Shape(0.6, 0.55, 0.6, 0.17, (0.23, 0.09), (-0.49, -0.43), 0.78, 0.37, 1.7, (*_ESTATE_PANES, 0.92)),
    "compact": Shape(0.58, 0.48, 0.57, 0.14, (0.32, 0.1), (-0.49, -0.42), 0.74, 0.29, 1.5, (0.1, 0.48, 0.53, 0.9)),
}
_VAN_PANES = (0.04, 0.32, 0.35, 0.62, 0.65, 0.94)
VAN_SHAPES = {
    "minibus": Shape(0.52, 0.47, 0.52, 0.11, (0.36, 0.22), (-0.495, -0.47), 0.86, 0.34, 2.0, _VAN_PANES),
    "delivery": Shape(0.5, 0.45, 0.5, 0.11, (0.37, 0.22), (-0.495, -0.485), 0.9, 0.34, 2.2, (0.72, 0.95)),
}


def passenger_vehicle(dimensions: Size, shape: Shape, paint: Colour) -> Solid:
    """A car or van."""
    height, width, length = dimensions
    # a few proportions per shape, stretched to the exact size: wheels stay round within a few per cent
    proportions = (1.5, 1.65, round(length / height * 4) / 4 * 1.5)
    black, white = (_template(shape, proportions, grey) for grey in (0.0, 1.0))
    stretch = np.array([length, height, width]) / (proportions[2], proportions[0], proportions[1])
    normals = black.normals / stretch
    return replace(
        black,
        corners=black.corners * stretch,
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
        # colours are linear in the paint
        colours=black.colours + (white.colours - black.colours) * np.asarray(paint),
        part_centres=black.part_centres * stretch,
    )


@lru_cache(maxsize=256)
def _template(shape: Shape, dimensions: Size, grey: float) -> Solid:
    """A vehicle of this shape painted in one grey level, 0..1."""
    builder, paint = SolidBuilder(dimensions), (grey, grey, grey)
    radius = shape.wheel_radius_m * dimensions[0] / shape.usual_height_m
    part.add_wheels(builder, radius, (-0.31, 0.33), shape.clearance)
    _add_body(builder, shape, paint)
    _add_trim(builder, shape)
    _add_lights(builder, shape)
    _add_cabin(builder, shape, paint)
    return builder.build()


def _add_body(builder: SolidBuilder, shape: Shape, paint: Colour) -> None:
    """The part below the windows: cross-sections from rear to front, narrower and rounder at both ends."""
    c, belt, deck, bonnet = shape.clearance, shape.belt, shape.deck, shape.bonnet
    stations = (
        # along, share of the width, lower edge, upper edge
        (-0.500, 0.76, c + 0.08, deck - 0.12),
        (-0.485, 0.92, c + 0.02, deck - 0.03),
        (-0.430, 0.98, c, deck),
        (-0.300, 1.00, c, max(deck, belt - 0.01)),
        (0.200, 1.00, c, belt),
        (0.300, 1.00, c, 0.35 * belt + 0.65 * (bonnet + 0.06)),
        (0.420, 0.97, c, bonnet + 0.02),
        (0.475, 0.90, c + 0.01, bonnet - 0.03),
        (0.500, 0.72, c + 0.06, bonnet - 0.12),
    )
    # each cross-section: share of the width and of the height, right side upwards, then left side downwards
    half = ((0.93, 0.0), (0.99, 0.18), (1.00, 0.60), (0.95, 0.88), (0.84, 1.0))
    along, width, low, high = np.array(stations).T
    profile = [*((-w, t) for w, t in half), *reversed(half)]
    rings = np.stack([points(along, low + t * (high - low), 0.5 * width * w) for w, t in profile], axis=1)
    sill = tuple(0.35 * v for v in paint)
    builder.loft(rings, np.array([sill, *[paint] * 7, sill, part.TRIM_COLOUR]), part.BODY, gloss=1.0)


def _add_trim(builder: SolidBuilder, shape: Shape) -> None:
    """Door gaps, grille, bumpers and number plates."""
    c, rear = shape.clearance, 0.5 * (shape.clearance + shape.deck)
    door = (c + 0.05, shape.belt - 0.06)
    gaps = np.stack([side_quad((along, along + 0.006), door, 0.502) for along in (-0.16, 0.06, 0.235)])
    builder.add_pair(gaps, part.TRIM_COLOUR, _INSIDE, part.BODY_DETAIL)
    plate, plate_up = 0.26 / builder.width, 0.11 / builder.height
    for along, up, half, colour, gloss in (
        (0.501, (c + 0.16, shape.bonnet - 0.13), 0.22, part.TRIM_COLOUR, 0.5),
        (0.499, (c + 0.06, c + 0.11), 0.30, part.TRIM_COLOUR, 0.0),
        (-0.499, (c + 0.08, c + 0.13), 0.34, part.TRIM_COLOUR, 0.0),
        (0.502, (c + 0.12, c + 0.12 + plate_up), plate, part.PLATE_COLOUR, 0.0),
        (-0.502, (rear, rear + plate_up), plate, part.PLATE_COLOUR, 0.0),
    ):
        builder.add(end_quad(along, up, (-half, half)), colour, _INSIDE, part.BODY_DETAIL, gloss)


def _add_lights(builder: SolidBuilder, shape: Shape) -> None:
    """White lamps at the front and red ones at the rear, which continue around the corners."""
    f, r = shape.bonnet - 0.04, shape.deck - 0.06
    front = band(
        np.array([(0.5, f, 0.26), (0.478, f + 0.01, 0.44), (0.43, f - 0.01, 0.485)]),
        np.array([(0.502, f - 0.09, 0.28), (0.478, f - 0.09, 0.45), (0.45, f - 0.08, 0.49)]),
    )
    rear = band(
        np.array([(-0.497, r, 0.29), (-0.478, r, 0.455), (-0.43, r, 0.485)]),
        np.array([(-0.503, r - 0.14, 0.30), (-0.482, r - 0.14, 0.46), (-0.44, r - 0.11, 0.49)]),
    )
    colours = np.repeat([part.HEADLIGHT_COLOUR, part.TAIL_LIGHT_COLOUR], 2, axis=0)
    builder.add_pair(np.concatenate([front, rear]), colours, _INSIDE, part.BODY_DETAIL, 0.6)


def _add_cabin(builder: SolidBuilder, shape: Shape, paint: Colour) -> None:
    """Roof, pillars and windows: a frustum on the belt line."""
    narrow = 0.5 * shape.roof_width
    foot, eaves = (shape.rear[0], shape.screen[0]), (shape.rear[1], shape.screen[1])
    base, edge = level_quad(foot, shape.belt - 0.02, 0.45), level_quad(eaves, 0.955, narrow)
    top = level_quad((eaves[0] + 0.03, eaves[1] - 0.04), 1.0, narrow - 0.07)
    builder.loft([base, edge, top], paint, part.CABIN, gloss=1.0)
    right, screen, rear = (np.array([base[i], base[j], edge[j], edge[i]]) for i, j in ((0, 1), (1, 2), (3, 0)))
    spans = tuple(zip(shape.windows[::2], shape.windows[1::2], strict=True))
    upper_colour = 2.2 * np.array(part.GLASS_COLOUR)  # the sky's reflection
    for wall, u, v in (
        (screen, (0.05, 0.95), (0.06, 0.95)),
        (rear, (0.07, 0.93), (0.16, 0.90)),
        *((right, span, (0.10, 0.90)) for span in spans),
        *((right * (1, 1, -1), span, (0.10, 0.90)) for span in spans),
    ):
        split = v[0] + 0.55 * (v[1] - v[0])
        builder.add(sub_quad(wall, u, (v[0], split)), part.GLASS_COLOUR, (0.0, 0.7, 0.0), part.GLASS, 1.0)
        builder.add(sub_quad(wall, u, (split, v[1])), upper_colour, (0.0, 0.7, 0.0), part.GLASS, 1.0)
