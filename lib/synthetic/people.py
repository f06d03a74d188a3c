"""Pedestrians, sitting people and cyclists as solids. Unit coordinates: see ``solids``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .solids import Colour, Solid, SolidBuilder

TYRE_COLOUR: Colour = (0.07, 0.07, 0.07)
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Clothes:
    """BGR colours, 0..1."""

    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    shoes: Colour = (0.10, 0.10, 0.12)


def pedestrian(dimensions: tuple[float, float, float], clothes: Clothes, left_leads: bool) -> Solid:
    """A person in mid-stride. ``dimensions``: (h, w, l) [m].

    Hands and feet reach the faces of the 3D box, as in KITTI, where the box holds the swinging limbs: so the step is
    as long as the box.
    """
    builder = SolidBuilder(dimensions)
    toe, heel = 0.20 / builder.length, 0.07 / builder.length
    for sign in (-1.0, 1.0):
        leads = (sign > 0) == left_leads
        foot = 0.5 - toe if leads else heel - 0.5
        hip, knee, ankle = (0.0, 0.48, 0.13 * sign), (0.55 * foot + 0.04, 0.27, 0.15 * sign), (foot, 0.05, 0.16 * sign)
        builder.tube(hip, knee, (0.095, 0.07), clothes.trousers, sides=6)
        builder.tube(knee, ankle, (0.07, 0.05), clothes.trousers, sides=6)
        sole = (0.16 * sign - 0.07, 0.16 * sign + 0.07)
        builder.box((foot - heel, foot + toe), (0.0, 0.05), sole, clothes.shoes)
        shoulder, elbow = (0.0, 0.81, 0.33 * sign), (-0.5 * foot - 0.06, 0.63, 0.43 * sign)
        hand = (-0.8 * foot, 0.49, 0.45 * sign)
        builder.tube(shoulder, elbow, (0.055, 0.045), clothes.shirt, sides=6)
        builder.tube(elbow, hand, (0.045, 0.035), clothes.shirt, sides=6)
        builder.box((hand[0] - 0.04, hand[0] + 0.04), (0.44, 0.49), (0.44 * sign, 0.5 * sign), clothes.skin)
    _add_torso(builder, (0.0, 0.46, 0.0), (0.0, 0.84, 0.0), clothes)
    _add_head(builder, (0.0, 0.93, 0.0), 0.07, clothes)
    return builder.build()


def sitting_person(dimensions: tuple[float, float, float], clothes: Clothes) -> Solid:
    """A person on a simple seat: KITTI's Person_sitting."""
    builder = SolidBuilder(dimensions)
    builder.box((-0.5, 0.05), (0.0, 0.34), (-0.5, 0.5), (0.35, 0.38, 0.40))
    for sign in (-1.0, 1.0):
        side = 0.2 * sign
        builder.tube((-0.2, 0.42, side), (0.3, 0.44, side), (0.09, 0.075), clothes.trousers, sides=6)
        builder.tube((0.3, 0.44, side), (0.36, 0.05, side), (0.075, 0.05), clothes.trousers, sides=6)
        builder.box((0.28, 0.5), (0.0, 0.06), (side - 0.08, side + 0.08), clothes.shoes)
        builder.tube((-0.2, 0.76, 0.36 * sign), (0.12, 0.5, 0.4 * sign), (0.055, 0.04), clothes.shirt, sides=6)
    _add_torso(builder, (-0.22, 0.38, 0.0), (-0.2, 0.79, 0.0), clothes)
    _add_head(builder, (-0.2, 0.905, 0.0), 0.095, clothes)
    return builder.build()


def cyclist(dimensions: tuple[float, float, float], clothes: Clothes, frame: Colour) -> Solid:
    """Bicycle and rider, leaning slightly forward. ``dimensions``: (h, w, l) [m]."""
    builder = SolidBuilder(dimensions)
    radius = 0.34
    reach = 0.5 - radius / builder.length
    hub = radius / builder.height
    for axle in (-reach, reach):
        _add_bicycle_wheel(builder, axle, radius)
    rear, front, pedals = (-reach, hub, 0.0), (reach, hub, 0.0), (-0.05, hub, 0.0)
    seat, bars = (-0.16, 0.54, 0.0), (0.24, 0.60, 0.0)
    for start, end in ((rear, pedals), (rear, seat), (pedals, seat), (seat, bars), (pedals, bars), (bars, front)):
        builder.tube(start, end, (0.022, 0.022), frame)
    builder.tube((0.24, 0.63, -0.5), (0.24, 0.63, 0.5), (0.018, 0.018), TYRE_COLOUR)
    for sign in (-1.0, 1.0):
        foot_up = hub + 0.07 * sign
        hip, knee, foot = (
            (-0.14, 0.58, 0.14 * sign),
            (0.06, 0.44 + 0.05 * sign, 0.2 * sign),
            (-0.05, foot_up, 0.2 * sign),
        )
        builder.tube(hip, knee, (0.095, 0.07), clothes.trousers, sides=6)
        builder.tube(knee, foot, (0.07, 0.045), clothes.trousers, sides=6)
        builder.box((-0.10, 0.04), (foot_up - 0.04, foot_up), (0.2 * sign - 0.06, 0.2 * sign + 0.06), clothes.shoes)
        elbow, hand = (0.12, 0.70, 0.42 * sign), (0.24, 0.64, 0.44 * sign)
        builder.tube((-0.01, 0.83, 0.33 * sign), elbow, (0.055, 0.045), clothes.shirt, sides=6)
        builder.tube(elbow, hand, (0.045, 0.035), clothes.skin, sides=6)
    _add_torso(builder, (-0.15, 0.55, 0.0), (-0.02, 0.85, 0.0), clothes)
    _add_head(builder, (0.03, 0.93, 0.0), 0.07, clothes)
    return builder.build()


def _add_torso(builder: SolidBuilder, hips: Point, shoulders: Point, clothes: Clothes) -> None:
    """Elliptic rings from the hips to the neck."""
    angles = np.arange(10) * (2 * np.pi / 10)
    rings = []
    for t, half_side, half_along_m in ((0.0, 0.24, 0.11), (0.35, 0.22, 0.11), (0.85, 0.36, 0.13), (1.0, 0.15, 0.07)):
        centre = (1 - t) * np.asarray(hips) + t * np.asarray(shoulders)
        along = centre[0] + half_along_m / builder.length * np.cos(angles)
        rings.append(np.stack([along, np.full(10, centre[1]), half_side * np.sin(angles)], axis=1))
    builder.loft(np.stack(rings), clothes.shirt)


def _add_head(builder: SolidBuilder, centre: Point, half_up: float, clothes: Clothes) -> None:
    """A ball: skin in front and below, hair behind and on top, so that the heading shows."""
    angles = np.arange(10) * (2 * np.pi / 10)
    rings, radius_m = [], 0.105
    for polar in np.linspace(-0.5 * np.pi, 0.5 * np.pi, 6):
        radius = max(float(np.cos(polar)), 0.05) * radius_m
        rings.append(
            np.stack(
                [
                    centre[0] + radius / builder.length * np.cos(angles),
                    np.full(10, centre[1] + half_up * np.sin(polar)),
                    radius / builder.width * np.sin(angles),
                ],
                axis=1,
            )
        )
    face = np.cos(angles + np.pi / 10) > 0.25
    skin, hair = np.asarray(clothes.skin), np.asarray(clothes.hair)
    builder.loft(np.stack(rings[:4]), np.where(face[:, None], skin, hair), caps=(True, False))
    builder.loft(np.stack(rings[3:]), clothes.hair, caps=(False, True))


def _add_bicycle_wheel(builder: SolidBuilder, axle: float, radius_m: float) -> None:
    """A ring of square section; hub and spokes are too thin to matter."""
    angles = np.arange(13) * (2 * np.pi / 12) + np.pi / 12
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    circle = circle / np.abs(circle[:, 1]).max()
    half = 0.02 / builder.width

    def rim(radius: float, side: float) -> np.ndarray:
        along = axle + radius / builder.length * circle[:, 0]
        return np.stack([along, (radius_m + radius * circle[:, 1]) / builder.height, np.full(13, side)], axis=1)

    outer_left, outer_right = rim(radius_m, half), rim(radius_m, -half)
    inside = (axle, radius_m / builder.height, 0.0)
    for side, outer in ((half, outer_left), (-half, outer_right)):
        inner = rim(radius_m - 0.045, side)
        builder.add(np.stack([outer[:-1], outer[1:], inner[1:], inner[:-1]], axis=1), TYRE_COLOUR, inside)
    tread = np.stack([outer_left[:-1], outer_left[1:], outer_right[1:], outer_right[:-1]], axis=1)
    builder.add(tread, TYRE_COLOUR, inside)
