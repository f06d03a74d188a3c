"""What every vehicle has: wheels, lamps, and rectangles for details. Unit coordinates: see ``solids``."""

import numpy as np

from .solids import Colour, SolidBuilder, Span, circle, end_quad, points

# Layers of a vehicle's parts. They are right while the camera is above the belt line, as in any street scene.
TYRES, BODY, BODY_DETAIL, CABIN, GLASS = range(5)

GLASS_COLOUR: Colour = (0.13, 0.11, 0.10)
TYRE_COLOUR: Colour = (0.06, 0.06, 0.06)
RIM_COLOUR: Colour = (0.55, 0.55, 0.56)
HEADLIGHT_COLOUR: Colour = (0.95, 0.95, 0.92)
TAIL_LIGHT_COLOUR: Colour = (0.10, 0.08, 0.72)
PLATE_COLOUR: Colour = (0.80, 0.85, 0.85)
TRIM_COLOUR: Colour = (0.10, 0.10, 0.10)


def wheel_circle(count: int) -> np.ndarray:
    """Points around a wheel of 12 corners, (count, 2), scaled so that its lowest edge touches the ground."""
    corners = np.resize(circle(12, np.pi / 12), (count, 2))
    return corners / np.abs(corners[:, 1]).max()


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


def add_lamp_pair(
    builder: SolidBuilder, along: float, up: Span, side: float, colour: Colour, layer: int = BODY_DETAIL
) -> None:
    """Two lamps at one end, centred ``side`` to the left and to the right of the middle."""
    for sign in (-1, 1):
        lamp = end_quad(along, up, (sign * side - 0.06, sign * side + 0.06))
        builder.add(lamp, colour, (0, 0.5, 0), layer, 0.5)
