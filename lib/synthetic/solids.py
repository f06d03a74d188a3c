"""Solids made of flat faces: the building blocks of vehicles and people.

A solid is described in unit coordinates ``(along, up, side)``: along = -0.5 (rear) .. 0.5 (front), up = 0 (ground) .. 1
(top), side = -0.5 (right) .. 0.5 (left). The builder scales them by the object's length, height and width, so that
whatever touches the unit box touches the labelled 3D box.

Axes of arrays: F faces, M corners of a face (shorter polygons repeat their last corner).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_CORNERS = 12
Colour = tuple[float, float, float]
"""BGR, 0..1"""


@dataclass(frozen=True, slots=True)
class Solid:
    """Faces of one object in its own frame (x along the heading, y down, z to the left; origin: bottom centre)."""

    corners: np.ndarray
    """(F, M, 3) [m]"""
    normals: np.ndarray
    """(F, 3), unit, pointing outwards"""
    colours: np.ndarray
    """(F, 3) BGR, 0..1"""
    gloss: np.ndarray
    """(F,) 0 = matt, 1 = car paint or glass"""
    layers: np.ndarray
    """(F,) drawn in this order whatever the view (a window after the wall that holds it)"""
    part_centres: np.ndarray
    """(F, 3) [m] centre of the convex part that the face belongs to: within a layer far parts come first"""


class SolidBuilder:
    """Collects convex parts and turns them into a :class:`Solid`."""

    def __init__(self, dimensions: tuple[float, float, float]) -> None:
        """``dimensions``: (height, width, length) [m] as in a label."""
        height, width, length = dimensions
        self.scale = np.array([length, -height, width])
        self.height, self.width, self.length = height, width, length
        self._corners: list[np.ndarray] = []
        self._colours: list[Sequence[float]] = []
        self._gloss: list[float] = []
        self._layers: list[int] = []
        self._centres: list[Sequence[float]] = []

    def add(
        self,
        faces: np.ndarray,
        colour: Colour | np.ndarray,
        inside: Sequence[float] | np.ndarray,
        layer: int = 0,
        gloss: float = 0.0,
    ) -> None:
        """Add faces of one convex part.

        ``faces``: (F, M, 3) unit coordinates; ``colour``: one BGR or (F, 3); ``inside``: a unit-coordinate point behind
        every face, from which the outward side is known (so the order of corners does not matter).
        """
        points = np.asarray(faces, dtype=np.float64)
        count, corners = points.shape[:2]
        if corners < MAX_CORNERS:
            padded = np.empty((count, MAX_CORNERS, 3))
            padded[:, :corners] = points
            padded[:, corners:] = points[:, -1:]
            points = padded
        self._corners.append(points)
        self._colours.extend(np.broadcast_to(np.asarray(colour), (count, 3)).tolist())
        self._gloss.extend([gloss] * count)
        self._layers.extend([layer] * count)
        self._centres.extend([tuple(inside)] * count)

    def loft(
        self,
        rings: np.ndarray,
        colour: Colour | np.ndarray,
        layer: int = 0,
        gloss: float = 0.0,
        caps: tuple[bool, bool] = (True, True),
    ) -> None:
        """A skin over rings (S, K, 3), K <= 12, unit coordinates. ``colour``: one, or (K, 3): one per strip."""
        rings = np.asarray(rings, dtype=np.float64)
        following = np.concatenate([rings[:, 1:], rings[:, :1]], axis=1)
        quads = np.stack([rings[:-1], following[:-1], following[1:], rings[1:]], axis=2).reshape(-1, 4, 3)
        inside = rings.mean(axis=(0, 1))
        strips = np.asarray(colour, dtype=np.float64)
        plain = strips if strips.ndim == 1 else strips.mean(axis=0)
        if strips.ndim == 2:
            strips = np.tile(strips, (len(rings) - 1, 1))
        self.add(quads, strips, inside, layer, gloss)
        for cap, wanted in ((rings[0], caps[0]), (rings[-1], caps[1])):
            if wanted:
                self.add(cap[None], plain, inside, layer, gloss)

    def box(
        self,
        along: tuple[float, float],
        up: tuple[float, float],
        side: tuple[float, float],
        colour: Colour,
        layer: int = 0,
        gloss: float = 0.0,
    ) -> None:
        """An axis-parallel box between the given unit coordinates."""
        ring = np.array([[0.0, up[0], side[0]], [0.0, up[0], side[1]], [0.0, up[1], side[1]], [0.0, up[1], side[0]]])
        rings = np.stack([ring, ring])
        rings[0, :, 0], rings[1, :, 0] = along
        self.loft(rings, colour, layer, gloss)

    def tube(
        self,
        start: tuple[float, float, float],
        end: tuple[float, float, float],
        radii_m: tuple[float, float],
        colour: Colour,
        layer: int = 0,
        sides: int = 4,
    ) -> None:
        """A tapered prism between two unit-coordinate points; ``radii_m`` [m] at both ends."""
        p, q = np.asarray(start) * self.scale, np.asarray(end) * self.scale
        # plain floats: for single vectors an order of magnitude quicker than np.cross
        x, y, z = (q - p).tolist()
        norm = max(math.sqrt(x * x + y * y + z * z), 1e-9)
        x, y, z = x / norm, y / norm, z / norm
        # across the axis: in the plane along-up unless the tube points sideways
        first = (y, -x, 0.0) if abs(z) < 0.9 else (0.0, z, -y)
        size = math.hypot(*first)
        a, b, c = (v / size for v in first)
        across = np.array([(a, b, c), (y * c - z * b, z * a - x * c, x * b - y * a)])
        angles = np.arange(sides) * (2 * np.pi / sides) + np.pi / sides
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ across
        rings = np.stack([p + radii_m[0] * circle, q + radii_m[1] * circle]) / self.scale
        self.loft(rings, colour, layer)

    def build(self) -> Solid:
        """The solid of all parts added so far, stretched by the last per cent so that it fills its box exactly."""
        points = np.concatenate(self._corners)
        centres = np.array(self._centres, dtype=np.float64)
        low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
        wanted = np.array([-0.5, 0.0, -0.5])
        points, centres = ((part - low) / (high - low) + wanted for part in (points, centres))
        points, centres = points * self.scale, centres * self.scale
        # Newell's normal: also right for polygons with repeated corners
        following = np.concatenate([points[:, 1:], points[:, :1]], axis=1)
        normals = np.cross(points, following).sum(axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        outward = np.einsum("fi,fi->f", normals, points.mean(axis=1) - centres)
        normals[outward < 0] *= -1
        return Solid(
            corners=points,
            normals=normals,
            colours=np.array(self._colours, dtype=np.float64),
            gloss=np.array(self._gloss, dtype=np.float64),
            layers=np.array(self._layers),
            part_centres=centres,
        )


def sub_quad(quad: np.ndarray, u: tuple[float, float], v: tuple[float, float]) -> np.ndarray:
    """The part of a quad (4, 3) between bilinear coordinates u (corner 0 -> 1) and v (corner 0 -> 3), as (1, 4, 3)."""
    q = np.asarray(quad, dtype=np.float64)
    corners = [(u[0], v[0]), (u[1], v[0]), (u[1], v[1]), (u[0], v[1])]
    rows = [(1 - a) * (1 - b) * q[0] + a * (1 - b) * q[1] + a * b * q[2] + (1 - a) * b * q[3] for a, b in corners]
    return np.stack(rows)[None]
