"""Pedestrians, sitting people and cyclists as solids. Unit coordinates: see ``solids``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .solids import Colour, Point, Size, Solid, SolidBuilder, Span, band, circle, points, wheel_circle

_BICYCLE_TYRE_COLOUR = (0.07, 0.07, 0.07)


@dataclass(frozen=True, slots=True)
class Clothes:
    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    shoes: Colour = (0.10, 0.10, 0.12)


def pedestrian(dimensions: Size, clothes: Clothes, left_leads: bool) -> Solid:
    """A walking person whose hands and feet reach the faces of the 3D box: KITTI's boxes contain the swinging limbs."""
    builder = SolidBuilder(dimensions)
    toe, heel = 0.20 / builder.length, 0.07 / builder.length
    for sign in (-1.0, 1.0):
        foot = 0.5 - toe if (sign > 0) == left_leads else heel - 0.5
        leg = ((0.0, 0.48, 0.13 * sign), (0.55 * foot + 0.04, 0.27, 0.15 * sign), (foot, 0.05, 0.16 * sign))
        _add_limb(builder, leg, (0.095, 0.07, 0.05), clothes.trousers)
        sole = (0.16 * sign - 0.07, 0.16 * sign + 0.07)
        builder.box((foot - heel, foot + toe), (0.0, 0.05), sole, clothes.shoes)
        hand = (-0.8 * foot, 0.49, 0.45 * sign)
        arm = ((0.0, 0.81, 0.33 * sign), (-0.5 * foot - 0.06, 0.63, 0.43 * sign), hand)
        _add_limb(builder, arm, (0.055, 0.045, 0.035), clothes.shirt)
        builder.box((hand[0] - 0.04, hand[0] + 0.04), (0.44, 0.49), (0.44 * sign, 0.5 * sign), clothes.skin)
    _add_torso_and_head(builder, (0.0, 0.46), (0.0, 0.84), (0.0, 0.93), 0.07, clothes)
    return builder.build()


def sitting_person(dimensions: Size, clothes: Clothes) -> Solid:
    """A person on a simple seat, for KITTI's Person_sitting."""
    builder = SolidBuilder(dimensions)
    builder.box((-0.5, 0.05), (0.0, 0.34), (-0.5, 0.5), (0.35, 0.38, 0.40))
    for sign in (-1.0, 1.0):
        side = 0.2 * sign
        leg = ((-0.2, 0.42, side), (0.3, 0.44, side), (0.36, 0.05, side))
        _add_limb(builder, leg, (0.09, 0.075, 0.05), clothes.trousers)
        builder.box((0.28, 0.5), (0.0, 0.06), (side - 0.08, side + 0.08), clothes.shoes)
        _add_limb(builder, ((-0.2, 0.76, 0.36 * sign), (0.12, 0.5, 0.4 * sign)), (0.055, 0.04), clothes.shirt)
    _add_torso_and_head(builder, (-0.22, 0.38), (-0.2, 0.79), (-0.2, 0.905), 0.095, clothes)
    return builder.build()


def cyclist(dimensions: Size, clothes: Clothes, frame: Colour) -> Solid:
    """Bicycle and rider, leaning slightly forward."""
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
    builder.tube((0.24, 0.63, -0.5), (0.24, 0.63, 0.5), (0.018, 0.018), _BICYCLE_TYRE_COLOUR)
    for sign in (-1.0, 1.0):
        side, foot_up = 0.2 * sign, hub + 0.07 * sign
        leg = ((-0.14, 0.58, 0.14 * sign), (0.06, 0.44 + 0.05 * sign, side), (-0.05, foot_up, side))
        _add_limb(builder, leg, (0.095, 0.07, 0.045), clothes.trousers)
        builder.box((-0.10, 0.04), (foot_up - 0.04, foot_up), (side - 0.06, side + 0.06), clothes.shoes)
        elbow = (0.12, 0.70, 0.42 * sign)
        _add_limb(builder, ((-0.01, 0.83, 0.33 * sign), elbow), (0.055, 0.045), clothes.shirt)
        _add_limb(builder, (elbow, (0.24, 0.64, 0.44 * sign)), (0.045, 0.035), clothes.skin)
    _add_torso_and_head(builder, (-0.15, 0.55), (-0.02, 0.85), (0.03, 0.93), 0.07, clothes)
    return builder.build()


def _add_limb(builder: SolidBuilder, joints: Sequence[Point], radii_m: Sequence[float], colour: Colour) -> None:
    """Tapered tubes from joint to joint."""
    for i in range(len(joints) - 1):
        builder.tube(joints[i], joints[i + 1], (radii_m[i], radii_m[i + 1]), colour, sides=6)


def _add_torso_and_head(
    builder: SolidBuilder, hips: Span, neck: Span, head: Span, head_half_up: float, clothes: Clothes
) -> None:
    """Elliptic rings from the hips to the neck, and a ball; ``hips``, ``neck``, ``head``: (along, up) of the centres.

    The face is in front and below, hair behind and on top, so that the heading can be seen.
    """
    cos, sin = circle(10).T
    rings = []
    for t, half_side, half_along_m in ((0.0, 0.24, 0.11), (0.35, 0.22, 0.11), (0.85, 0.36, 0.13), (1.0, 0.15, 0.07)):
        along, up = ((1 - t) * a + t * b for a, b in zip(hips, neck, strict=True))
        rings.append(points(along + half_along_m / builder.length * cos, up, half_side * sin))
    builder.loft(rings, clothes.shirt)
    rings = []
    for polar in np.linspace(-0.5 * np.pi, 0.5 * np.pi, 6):
        radius = max(float(np.cos(polar)), 0.05) * 0.105
        along, side = head[0] + radius / builder.length * cos, radius / builder.width * sin
        rings.append(points(along, head[1] + head_half_up * np.sin(polar), side))
    is_face = circle(10, np.pi / 10)[:, :1] > 0.25
    builder.loft(rings[:4], np.where(is_face, clothes.skin, clothes.hair), caps=(0,))
    builder.loft(rings[3:], clothes.hair, caps=(-1,))


def _add_bicycle_wheel(builder: SolidBuilder, axle: float, radius_m: float) -> None:
    """A ring of square section; hub and spokes are too thin to be seen."""
    cos, sin = wheel_circle(13).T  # the first corner again at the end
    half, rim_m = 0.02 / builder.width, radius_m - 0.045
    outer, inner = (
        points(axle + r / builder.length * cos, (radius_m + r * sin) / builder.height, half) for r in (radius_m, rim_m)
    )
    mirror = (1, 1, -1)
    for first, second in ((outer, inner), (outer * mirror, inner * mirror), (outer, outer * mirror)):
        builder.add(band(first, second), _BICYCLE_TYRE_COLOUR, (axle, radius_m / builder.height, 0.0))
