"""Cars, vans, lorries, trams and trailers as solids. Unit coordinates: see ``solids``."""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from .solids import Colour, Size, Solid, SolidBuilder, Span, band, end_quad, level_quad, points, side_quad, wheel_circle

# Layers of a vehicle's parts. They are right while the camera is above the belt line, as in any street scene.
TYRES, BODY, BODY_DETAIL, CABIN, GLASS = range(5)

GLASS_COLOUR: Colour = (0.13, 0.11, 0.10)
TYRE_COLOUR: Colour = (0.06, 0.06, 0.06)
RIM_COLOUR: Colour = (0.55, 0.55, 0.56)
HEADLIGHT_COLOUR: Colour = (0.95, 0.95, 0.92)
TAIL_LIGHT_COLOUR: Colour = (0.10, 0.08, 0.72)
PLATE_COLOUR: Colour = (0.80, 0.85, 0.85)
TRIM_COLOUR: Colour = (0.10, 0.10, 0.10)
_INSIDE, _MIDDLE = (0, 0.4, 0), (0, 0.5, 0)


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
    corners, centres, normals = black.corners * stretch, black.part_centres * stretch, black.normals / stretch
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colours = black.colours + (white.colours - black.colours) * np.asarray(paint)  # linear in the paint
    return replace(black, corners=corners, normals=normals, colours=colours, part_centres=centres)


@lru_cache(maxsize=256)
def _template(shape: Shape, dimensions: Size, grey: float) -> Solid:
    """A vehicle of this shape painted in one grey level, 0..1."""
    builder, paint = SolidBuilder(dimensions), (grey, grey, grey)
    radius = shape.wheel_radius_m * dimensions[0] / shape.usual_height_m
    add_wheels(builder, radius, (-0.31, 0.33), shape.clearance)
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
    builder.loft(rings, np.array([sill, *[paint] * 7, sill, TRIM_COLOUR]), BODY, gloss=1.0)


def _add_trim(builder: SolidBuilder, shape: Shape) -> None:
    """Door gaps, grille, bumpers and number plates."""
    c, rear = shape.clearance, 0.5 * (shape.clearance + shape.deck)
    door = (c + 0.05, shape.belt - 0.06)
    gaps = np.stack([side_quad((along, along + 0.006), door, 0.502) for along in (-0.16, 0.06, 0.235)])
    builder.add_pair(gaps, TRIM_COLOUR, _INSIDE, BODY_DETAIL)
    plate, plate_up = 0.26 / builder.width, 0.11 / builder.height
    for along, up, half, colour, gloss in (
        (0.501, (c + 0.16, shape.bonnet - 0.13), 0.22, TRIM_COLOUR, 0.5),
        (0.499, (c + 0.06, c + 0.11), 0.30, TRIM_COLOUR, 0.0),
        (-0.499, (c + 0.08, c + 0.13), 0.34, TRIM_COLOUR, 0.0),
        (0.502, (c + 0.12, c + 0.12 + plate_up), plate, PLATE_COLOUR, 0.0),
        (-0.502, (rear, rear + plate_up), plate, PLATE_COLOUR, 0.0),
    ):
        builder.add(end_quad(along, up, (-half, half)), colour, _INSIDE, BODY_DETAIL, gloss)


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
    colours = np.repeat([HEADLIGHT_COLOUR, TAIL_LIGHT_COLOUR], 2, axis=0)
    builder.add_pair(np.concatenate([front, rear]), colours, _INSIDE, BODY_DETAIL, 0.6)


def _add_cabin(builder: SolidBuilder, shape: Shape, paint: Colour) -> None:
    """Roof, pillars and windows: a frustum on the belt line."""
    narrow = 0.5 * shape.roof_width
    foot, eaves = (shape.rear[0], shape.screen[0]), (shape.rear[1], shape.screen[1])
    base, edge = level_quad(foot, shape.belt - 0.02, 0.45), level_quad(eaves, 0.955, narrow)
    top = level_quad((eaves[0] + 0.03, eaves[1] - 0.04), 1.0, narrow - 0.07)
    builder.loft([base, edge, top], paint, CABIN, gloss=1.0)
    right, screen, rear = (np.array([base[i], base[j], edge[j], edge[i]]) for i, j in ((0, 1), (1, 2), (3, 0)))
    spans = tuple(zip(shape.windows[::2], shape.windows[1::2], strict=True))
    upper_colour = 2.2 * np.array(GLASS_COLOUR)  # the sky's reflection
    for wall, u, v in (
        (screen, (0.05, 0.95), (0.06, 0.95)),
        (rear, (0.07, 0.93), (0.16, 0.90)),
        *((right, span, (0.10, 0.90)) for span in spans),
        *((right * (1, 1, -1), span, (0.10, 0.90)) for span in spans),
    ):
        split = v[0] + 0.55 * (v[1] - v[0])
        builder.add(sub_quad(wall, u, (v[0], split)), GLASS_COLOUR, (0.0, 0.7, 0.0), GLASS, 1.0)
        builder.add(sub_quad(wall, u, (split, v[1])), upper_colour, (0.0, 0.7, 0.0), GLASS, 1.0)


def truck(dimensions: Size, paint: Colour, cargo: Colour) -> Solid:
    """A lorry: cab, chassis and cargo box."""
    builder = SolidBuilder(dimensions)
    cab = min(0.45, 2.1 / builder.length)
    floor = 0.95 / builder.height
    joint = 0.5 - cab
    add_wheels(builder, 0.48, (-0.40, -0.28, joint + 0.45 * cab), floor * 0.6, 0.3)
    builder.box((-0.5, joint), (floor * 0.55, floor), (-0.42, 0.42), TRIM_COLOUR, TYRES)
    builder.box((-0.5, joint - 0.02), (floor, 1.0), (-0.5, 0.5), cargo, BODY)
    builder.box((-0.503, -0.50), (floor * 0.75, floor), (-0.45, 0.45), (0.2, 0.2, 0.2), BODY)
    low, top = floor * 0.45, min(0.96, 2.9 / builder.height)
    # towards the front: the roof is narrower than the floor, and the lower edge of the front is rounded
    across, feet = np.array([-0.48, 0.48, 0.46, -0.46]), ((joint, low), (0.49, low), (0.5, low + 0.02))
    builder.loft([points(x, np.array([up, up, top, top]), across) for x, up in feet], paint, BODY, gloss=0.7)
    middle = 0.5 * (floor + top)
    inside = (0.5 - cab / 2, middle, 0.0)
    builder.add(end_quad(0.503, (middle, top - 0.03), (-0.40, 0.40)), GLASS_COLOUR, inside, GLASS, 1.0)
    builder.add(end_quad(0.503, (floor * 0.8, middle - 0.08), (-0.25, 0.25)), TRIM_COLOUR, inside, GLASS)
    window = side_quad((joint + 0.3 * cab, 0.48), (middle, top - 0.05), 0.49)
    builder.add_pair(window, GLASS_COLOUR, inside, GLASS, 1.0)
    for end, colour in ((0.504, HEADLIGHT_COLOUR), (-0.504, TAIL_LIGHT_COLOUR)):
        add_lamps(builder, end, (floor * 0.6, floor * 0.75), 0.35, colour, GLASS)
    return builder.build()


def tram(dimensions: Size, paint: Colour, accent: Colour) -> Solid:
    """A tram or bus with a row of windows."""
    builder = SolidBuilder(dimensions)
    builder.box((-0.46, 0.46), (0.0, 0.12), (-0.40, 0.40), TYRE_COLOUR, TYRES)
    half, along = np.array([0.42, 0.5, 0.5, 0.42]), np.array([-0.5, -0.47, 0.47, 0.5])
    profile = ((-1, 0.06), (-1, 0.40), (-0.97, 0.93), (-0.8, 1.0), (0.8, 1.0), (0.97, 0.93), (1, 0.40), (1, 0.06))
    rings = np.stack([points(along, t, half * w) for w, t in profile], axis=1)
    builder.loft(rings, np.array([accent, *[paint] * 5, accent, TRIM_COLOUR]), BODY, gloss=0.7)
    gap = 0.08 / builder.length
    edges = np.linspace(-0.46, 0.46, max(3, round(builder.length / 1.6)) + 1)
    panes = np.stack([side_quad((a + gap, b - gap), (0.45, 0.82), 0.497) for a, b in pairwise(edges)])
    builder.add_pair(panes, GLASS_COLOUR, _MIDDLE, BODY_DETAIL, 1.0)
    for end in (-0.502, 0.502):
        builder.add(end_quad(end, (0.45, 0.85), (-0.38, 0.38)), GLASS_COLOUR, _MIDDLE, BODY_DETAIL, 1.0)
    for end, colour in ((0.504, HEADLIGHT_COLOUR), (-0.504, TAIL_LIGHT_COLOUR)):
        add_lamps(builder, end, (0.2, 0.27), 0.35, colour, GLASS)
    return builder.build()


def trailer(dimensions: Size, paint: Colour) -> Solid:
    """A two-wheeled box trailer, for KITTI's Misc."""
    builder = SolidBuilder(dimensions)
    floor = min(0.35, 0.5 / builder.height)
    radius = min(0.3, 0.25 * builder.height, 0.2 * builder.length)
    add_wheels(builder, radius, (-0.05,), floor, 0.15)
    builder.box((-0.5, 0.36), (floor, 1.0), (-0.5, 0.5), paint, BODY, gloss=0.3)
    builder.tube((0.36, floor, 0.0), (0.5, floor, 0.0), (0.05, 0.04), TRIM_COLOUR, BODY)
    stripe = side_quad((-0.48, 0.34), (floor + 0.06, floor + 0.12), 0.502)
    builder.add_pair(stripe, TRIM_COLOUR, _MIDDLE, BODY_DETAIL)
    add_lamps(builder, -0.502, (floor + 0.05, floor + 0.15), 0.4, TAIL_LIGHT_COLOUR, BODY_DETAIL)
    return builder.build()


def add_wheels(
    builder: SolidBuilder, radius_m: float, axles: tuple[float, ...], clearance: float, width_m: float = 0.2
) -> None:
    """Tyres that stand on the ground; the outer discs are drawn over the body, the treads before it."""
    radius_x, radius_up = radius_m / builder.length, radius_m / builder.height
    cos, sin = wheel_circle(12).T
    arch = np.linspace(0, np.pi, 12)
    for axle in axles:
        for sign in (-1.0, 1.0):
            outer = 0.497 * sign
            inner = outer - sign * (width_m / builder.width)
            tyre, rim, hub = (
                points(axle + scale * radius_x * cos, radius_up * (1 + scale * sin), outer) for scale in (1, 0.62, 0.2)
            )
            builder.loft([tyre, tyre * (1, 1, 0) + (0, 0, inner)], TYRE_COLOUR, TYRES)
            well_up = np.maximum(radius_up * (1 + 1.18 * np.sin(arch)), clearance)
            well = points(axle + 1.18 * radius_x * np.cos(arch), well_up, outer)
            for face, colour in ((well, TRIM_COLOUR), (tyre, TYRE_COLOUR), (rim, RIM_COLOUR), (hub, TRIM_COLOUR)):
                builder.add(face, colour, (axle, radius_up, 0.0), BODY_DETAIL)


def add_lamps(builder: SolidBuilder, along: float, up: Span, side: float, colour: Colour, layer: int) -> None:
    """Two lamps at one end, centred ``side`` to the left and to the right of the middle."""
    for sign in (-1, 1):
        lamp = end_quad(along, up, (sign * side - 0.06, sign * side + 0.06))
        builder.add(lamp, colour, (0, 0.5, 0), layer, 0.5)


def sub_quad(quad: np.ndarray, u: Span, v: Span) -> np.ndarray:
    """The part of a quad (4, 3) between bilinear coordinates u (corner 0 -> 1) and v (corner 0 -> 3), as (4, 3)."""
    corners = [(u[0], v[0]), (u[1], v[0]), (u[1], v[1]), (u[0], v[1])]
    a, b, c, d = quad
    return np.stack([(1 - s) * (1 - t) * a + s * (1 - t) * b + s * t * c + (1 - s) * t * d for s, t in corners])
