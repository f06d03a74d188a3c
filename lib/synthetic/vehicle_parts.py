"""What every vehicle has: wheels, lamps, and rectangles for details. Unit coordinates: see ``solids``."""

from __future__ import annotations

import numpy as np

from .solids import Colour, SolidBuilder

# Drawing order of a vehicle's parts. Right while the camera is above the belt line, as in any street scene.
TYRES, BODY, BODY_DETAIL, CABIN, GLASS = 0, 1, 2, 3, 4

GLASS_COLOUR: Colour = (0.13, 0.11, 0.10)
TYRE_COLOUR: Colour = (0.06, 0.06, 0.06)
RIM_COLOUR: Colour = (0.55, 0.55, 0.56)
HEADLIGHT_COLOUR: Colour = (0.95, 0.95, 0.92)
TAIL_LIGHT_COLOUR: Colour = (0.10, 0.08, 0.72)
PLATE_COLOUR: Colour = (0.80, 0.85, 0.85)
TRIM_COLOUR: Colour = (0.10, 0.10, 0.10)


def add_wheels(
    builder: SolidBuilder, radius_m: float, axles: tuple[float, ...], clearance: float, width_m: float = 0.2
) -> None:
    """Tyres standing on the ground; the outer discs are drawn over the body, the rest before it."""
    radius_x, radius_up = radius_m / builder.length, radius_m / builder.height
    angles = np.arange(12) * (np.pi / 6) + np.pi / 12
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    circle = circle / np.abs(circle[:, 1]).max()  # the lowest corners touch the ground
    depth = width_m / builder.width
    arch = np.linspace(0, np.pi, 12)
    for axle in axles:
        for sign in (-1.0, 1.0):
            outer = 0.497 * sign

            def disc(scale: float, side: float, axle: float = axle) -> np.ndarray:
                return np.stack(
                    [axle + scale * radius_x * circle[:, 0], radius_up * (1 + scale * circle[:, 1]), np.full(12, side)],
                    1,
                )

            builder.loft(np.stack([disc(1, outer), disc(1, outer - sign * depth)]), TYRE_COLOUR, TYRES)
            well = np.stack(
                [
                    axle + 1.18 * radius_x * np.cos(arch),
                    np.maximum(radius_up * (1 + 1.18 * np.sin(arch)), clearance),
                    np.full(12, outer),
                ],
                axis=1,
            )
            inside = (axle, radius_up, 0.0)
            for face, colour in ((well, TRIM_COLOUR), (disc(1, outer), TYRE_COLOUR), (disc(0.62, outer), RIM_COLOUR)):
                builder.add(face[None], colour, inside, BODY_DETAIL)
            builder.add(disc(0.2, outer)[None], TRIM_COLOUR, inside, BODY_DETAIL)


def side_quad(along: tuple[float, float], up: tuple[float, float], side: float) -> np.ndarray:
    """A rectangle on a side wall, (1, 4, 3)."""
    (x0, x1), (u0, u1) = along, up
    return np.array([[(x0, u0, side), (x1, u0, side), (x1, u1, side), (x0, u1, side)]])


def end_quad(along: float, up: tuple[float, float], half_side: float) -> np.ndarray:
    """A rectangle across the front or rear end, (1, 4, 3)."""
    u0, u1 = up
    return np.array(
        [[(along, u0, -half_side), (along, u0, half_side), (along, u1, half_side), (along, u1, -half_side)]]
    )


def add_corner_lamps(builder: SolidBuilder, up: tuple[float, float]) -> None:
    for end, colour in ((0.504, HEADLIGHT_COLOUR), (-0.504, TAIL_LIGHT_COLOUR)):
        for sign in (-1, 1):
            lamp = end_quad(end, up, 0.06) + np.array([0.0, 0.0, sign * 0.35])
            builder.add(lamp, colour, (0, 0.5, 0), GLASS, 0.5)
