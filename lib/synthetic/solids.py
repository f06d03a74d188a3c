"""Solids made of flat faces, of which vehicles and people are built.

A solid is described in unit coordinates ``(along, up, side)``: along = -0.5 (rear) .. 0.5 (front), up = 0 (ground) .. 1
(top), side = -0.5 (right) .. 0.5 (left). The builder scales them by the object's length, height and width, so that
whatever touches the unit box touches the labelled 3D box.

Axes of arrays: F faces, M corners of a face (shorter polygons repeat their last corner).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MAX_CORNERS = 12
Colour = tuple[float, ...]  # (blue, green, red), 0..1
Colours = Colour | np.ndarray
Size = tuple[float, float, float]  # (height, width, length) [m], as in a label
Point = tuple[float, float, float]
Span = tuple[float, float]
Rings = Sequence[np.ndarray] | np.ndarray


@dataclass(frozen=True, slots=True)
class Solid:
    """Faces of one object in its own frame (x along the heading, y down, z to the left; origin: bottom centre)."""

    corners: np.ndarray  # (F, M, 3) [m]
    normals: np.ndarray  # (F, 3), unit length, pointing outwards
    colours: np.ndarray  # (F, 3) BGR, 0..1
    gloss: np.ndarray  # (F,) 0: matt, 1: car paint or glass
    layers: np.ndarray  # (F,) higher layers are drawn later from any viewpoint (a window after the wall around it)
    part_centres: np.ndarray  # (F, 3) [m] of the face's convex part: within a layer, far parts are drawn first


class SolidBuilder:
    """Collects convex parts and turns them into a :class:`Solid`."""

    def __init__(self, dimensions: Size) -> None:
        self.height, self.width, self.length = dimensions
        self.scale = np.array([self.length, -self.height, self.width])
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, faces: np.ndarray, colour: Colours, inside: Point, layer: int = 0, gloss: float = 0.0) -> None:
        """Add faces of one convex part.

        ``faces``: one (M, 3) or several (F, M, 3), unit coordinates; ``colour``: one or (F, 3); ``inside``: a point in
        unit coordinates behind every face. It defines the outward side; the order of corners does not matter.
        """
        corners = faces[None] if faces.ndim == 2 else faces
        count = len(corners)
        padding = np.repeat(corners[:, -1:], MAX_CORNERS - corners.shape[1], axis=1)
        corners = np.concatenate([corners, padding], axis=1)
        colours, centres = np.full((count, 3), colour), np.full((count, 3), inside)
        self._parts.append((corners, colours, np.full(count, gloss), np.full(count, layer), centres))

    def add_pair(self, faces: np.ndarray, colour: Colours, inside: Point, layer: int = 0, gloss: float = 0.0) -> None:
        """Add the mirror image of faces (F, M, 3), then the faces."""
        self.add(faces * (1, 1, -1), colour, inside, layer, gloss)
        self.add(faces, colour, inside, layer, gloss)

    def loft(
        self, rings: Rings, colour: Colours, layer: int = 0, gloss: float = 0.0, caps: tuple[int, ...] = (0, -1)
    ) -> None:
        """A skin over rings (K, 3), K <= 12, and ``caps`` on those of these indices. ``colour``: one, or (K, 3)."""
        strips = np.atleast_2d(colour)
        inside = np.mean(rings, axis=(0, 1))
        closed = [np.concatenate([ring, ring[:1]]) for ring in rings]
        for lower, upper in pairwise(closed):
            self.add(band(lower, upper), strips, inside, layer, gloss)
        for index in caps:
            self.add(rings[index], strips.mean(axis=0), inside, layer, gloss)

    def box(self, along: Span, up: Span, side: Span, colour: Colour, layer: int = 0, gloss: float = 0.0) -> None:
        """An axis-parallel box between the given unit coordinates."""
        self.loft([end_quad(x, up, side) for x in along], colour, layer, gloss)

    def tube(self, start: Point, end: Point, radii_m: Span, colour: Colour, layer: int = 0, sides: int = 4) -> None:
        """A tapered prism between two points in unit coordinates; ``radii_m`` [m] at both ends."""
        p, q = np.asarray(start) * self.scale, np.asarray(end) * self.scale
        x, y, z = (q - p).tolist()
        norm = max(math.sqrt(x * x + y * y + z * z), 1e-9)
        x, y, z = x / norm, y / norm, z / norm
        # perpendicular to the axis: in the plane of along and up, unless the tube points sideways
        first = (y, -x, 0.0) if abs(z) < 0.9 else (0.0, z, -y)
        a, b, c = (v / math.hypot(*first) for v in first)
        across = np.array([(a, b, c), (y * c - z * b, z * a - x * c, x * b - y * a)])
        section = circle(sides, np.pi / sides) @ across
        rings = [(p + radii_m[0] * section) / self.scale, (q + radii_m[1] * section) / self.scale]
        self.loft(rings, colour, layer)

    def build(self) -> Solid:
        """The solid of all parts added so far, stretched by the last per cent so that it fills its box exactly."""
        corners, colours, gloss, layers, centres = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        corners, centres = (((p - low) / (high - low) + (-0.5, 0.0, -0.5)) * self.scale for p in (corners, centres))
        # Newell's normal: also right for polygons with repeated corners
        normals = np.cross(corners, np.roll(corners, -1, axis=1)).sum(axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        outward = np.einsum("fi,fi->f", normals, corners.mean(axis=1) - centres)
        normals[outward < 0] *= -1
        return Solid(corners, normals, colours, gloss, layers, centres)


def points(along: np.ndarray | float, up: np.ndarray | float, side: np.ndarray | float) -> np.ndarray:
    """Three coordinates, arrays (..) or numbers, -> points (.., 3)."""
    return np.stack(np.broadcast_arrays(along, up, side), axis=-1)


def circle(count: int, start: float = 0.0) -> np.ndarray:
    """Points on the unit circle, (count, 2), the first at the angle ``start`` [rad]."""
    angles = np.arange(count) * (2 * np.pi / count) + start
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def wheel_circle(count: int) -> np.ndarray:
    """Points around a wheel of 12 corners, (count, 2), scaled so that its lowest edge touches the ground."""
    corners = np.resize(circle(12, np.pi / 12), (count, 2))
    return corners / np.abs(corners[:, 1]).max()


def band(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Quadrilaterals between two polylines (K, 3), from corner to corner: (K - 1, 4, 3)."""
    return np.stack([first[:-1], first[1:], second[1:], second[:-1]], axis=1)


def end_quad(along: float, up: Span, side: Span) -> np.ndarray:
    """A rectangle across the length, (4, 3): bottom edge from ``side[0]`` to ``side[1]``, then the top edge back."""
    return points(along, np.repeat(up, 2), np.array([side[0], side[1], side[1], side[0]]))


def side_quad(along: Span, up: Span, side: float) -> np.ndarray:
    """A rectangle parallel to the side walls, (4, 3), in the same order."""
    return points(np.array([along[0], along[1], along[1], along[0]]), np.repeat(up, 2), side)


def level_quad(along: Span, up: float, side: float) -> np.ndarray:
    """A horizontal rectangle of half-width ``side``, (4, 3): right edge forwards, left edge backwards."""
    return points(np.array([along[0], along[1], along[1], along[0]]), up, side * np.array([-1, -1, 1, 1]))
