"""Drawing solids: pose, near-plane clipping, shading, antialiased filling, and the instance buffer.

``canvas``: (H, W, 3) uint8 BGR. ``instances``: (H, W) uint16, 0 where no labelled object is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..structures import Calibration
from .solids import Solid

NEAR_M = 0.3
"""nothing nearer than this is drawn or counted [m]"""
NOTHING = 0
"""instance of clutter and ground: it erases what it hides"""
_SHIFT = 4  # fractional bits of OpenCV's polygon corners


@dataclass(frozen=True, slots=True)
class Lighting:
    """Sun and sky of one frame."""

    sun: tuple[float, float, float]
    """unit vector towards the sun, camera frame (y < 0: above)"""
    sun_strength: float
    ambient: float
    sky_colour: tuple[float, float, float]
    """BGR, 0..1, reflected by glossy faces"""


@dataclass(frozen=True, slots=True)
class Silhouette:
    """Where a solid was drawn."""

    pixels: int
    """size inside the image, before anything nearer hides it [px]"""
    box_img: tuple[float, float, float, float]
    """tight box (x1, y1, x2, y2) around the projection, not clipped to the image [px]"""


def place(solid: Solid, location_cam: tuple[float, float, float], rotation_y: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (F, M, 3) [m] and normals (F, 3) of a solid in the camera frame."""
    turn = _rotation(rotation_y)
    return solid.corners @ turn.T + np.asarray(location_cam), solid.normals @ turn.T


def _rotation(rotation_y: float) -> np.ndarray:
    cos, sin = math.cos(rotation_y), math.sin(rotation_y)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def clip_near(polygon_cam: np.ndarray, near: float = NEAR_M) -> np.ndarray:
    """The part of a polygon (M, 3) [m] with z >= near: (M', 3), empty when nothing is left."""
    z = polygon_cam[:, 2]
    inside = z >= near
    if inside.all():
        return polygon_cam
    if not inside.any():
        return polygon_cam[:0]
    kept = []
    for i in range(len(polygon_cam)):
        j = (i + 1) % len(polygon_cam)
        if inside[i]:
            kept.append(polygon_cam[i])
        if inside[i] != inside[j]:
            t = (near - z[i]) / (z[j] - z[i])
            kept.append(polygon_cam[i] + t * (polygon_cam[j] - polygon_cam[i]))
    return np.array(kept)


def project_faces(corners_cam: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Faces (F, M, 3) [m] -> polygons (F, M', 2) [px], clipped at the near plane.

    What is left of a clipped face has M' = M + 1 or fewer corners; the last one is repeated. Faces wholly behind the
    plane are NaN.
    """
    behind = corners_cam[..., 2].min(axis=1) < NEAR_M
    if not behind.any():
        return calibration.project(corners_cam.reshape(-1, 3)).reshape(*corners_cam.shape[:2], 2)
    safe = np.where(behind[:, None, None], 1.0, corners_cam)
    flat = calibration.project(safe.reshape(-1, 3)).reshape(*corners_cam.shape[:2], 2)
    flat = np.concatenate([flat, flat[:, -1:]], axis=1)
    for i in np.flatnonzero(behind):
        clipped = clip_near(corners_cam[i])
        flat[i] = np.nan
        if len(clipped) >= 3:
            polygon = calibration.project(clipped)
            flat[i, : len(polygon)], flat[i, len(polygon) :] = polygon, polygon[-1]
    return flat


def shade(solid: Solid, corners_cam: np.ndarray, normals_cam: np.ndarray, lighting: Lighting) -> np.ndarray:
    """Colours of the faces under the frame's light, (F, 3) BGR, 0..1: diffuse, sky reflection and a highlight."""
    sun = np.asarray(lighting.sun)
    view = -corners_cam.mean(axis=1)
    view /= np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-9)
    up = -normals_cam[:, 1]
    diffuse = lighting.ambient * (0.62 + 0.38 * up) + lighting.sun_strength * np.maximum(normals_cam @ sun, 0.0)
    facing = np.clip(np.einsum("fi,fi->f", normals_cam, view), 0.0, 1.0)
    mirrored = 2 * facing[:, None] * normals_cam - view
    fresnel = solid.gloss * (0.05 + 0.5 * (1 - facing) ** 3) * np.clip(0.6 - mirrored[:, 1], 0.0, 1.0)
    highlight = solid.gloss * lighting.sun_strength * np.clip(mirrored @ sun, 0.0, 1.0) ** 24
    sky = np.asarray(lighting.sky_colour)
    return solid.colours * diffuse[:, None] + fresnel[:, None] * sky + 0.8 * highlight[:, None]


def drawing_order(
    solid: Solid, corners_cam: np.ndarray, normals_cam: np.ndarray, centres_cam: np.ndarray
) -> np.ndarray:
    """Indices of the faces that look at the camera, in the order in which they are painted."""
    towards = np.einsum("fi,fi->f", normals_cam, corners_cam[:, 0]) < 0
    distance = np.linalg.norm(centres_cam, axis=1)
    order = np.lexsort((-distance, solid.layers))
    return order[towards[order]]


def draw_solid(
    canvas: np.ndarray,
    instances: np.ndarray,
    solid: Solid,
    pose: tuple[tuple[float, float, float], float],
    calibration: Calibration,
    lighting: Lighting,
    instance: int,
) -> Silhouette | None:
    """Paint a solid over what is there and enter ``instance`` in the buffer.

    ``pose``: (location_cam [m], rotation_y [rad]). None when nothing of it lies in front of the near plane.
    """
    corners, normals = place(solid, *pose)
    centres = solid.part_centres @ _rotation(pose[1]).T + np.asarray(pose[0])
    camera = np.array([calibration.tx, calibration.ty, 0.0])
    order = drawing_order(solid, corners - camera, normals, centres)
    colours = np.clip(shade(solid, corners, normals, lighting) * 255, 0, 255)[order]
    polygons = project_faces(corners[order], calibration)
    kept = ~np.isnan(polygons[:, 0, 0])
    if not kept.any():
        return None
    polygons = polygons[kept]
    (x1, y1), (x2, y2) = polygons.min(axis=(0, 1)), polygons.max(axis=(0, 1))
    pixels = fill_polygons(canvas, instances, polygons, colours[kept], instance)
    return Silhouette(pixels, (float(x1), float(y1), float(x2), float(y2)))


def fill_polygons(
    canvas: np.ndarray, instances: np.ndarray, polygons: np.ndarray, colours: np.ndarray, instance: int
) -> int:
    """Fill convex polygons (N, M, 2) [px] in order, antialiased by supersampling a patch around them.

    ``colours``: (N, 3) BGR, 0..255. Returns the number of pixels mostly covered.
    """
    height, width = canvas.shape[:2]
    left, top = np.maximum(np.floor(polygons.min(axis=(0, 1))) - 1, 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(polygons.max(axis=(0, 1))) + 2, (width, height)).astype(int).tolist()
    if right <= left or bottom <= top:
        return 0
    scale = 4 if (right - left) * (bottom - top) < 4000 else 2
    # four channels: the fourth gathers the silhouette in the same pass
    patch = np.zeros(((bottom - top) * scale, (right - left) * scale, 4), np.uint8)
    fine = (((polygons - (left, top) + 0.5) * scale - 0.5) * (1 << _SHIFT)).round().astype(np.int32)
    for polygon, (b, g, r) in zip(fine, colours.tolist(), strict=True):
        cv2.fillConvexPoly(patch, polygon, (b, g, r, 255), cv2.LINE_8, _SHIFT)
    small = cv2.resize(patch, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return blend(canvas, instances, small, (left, top), instance)


def fill_mixed(canvas: np.ndarray, instances: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Fill polygons of any length [px] with their colours (BGR, 0..255), in order."""
    if parts:
        longest = max(len(polygon) for polygon, _ in parts)
        polygons = [np.concatenate([p, np.repeat(p[-1:], longest - len(p), axis=0)]) for p, _ in parts]
        colours = np.clip(np.stack([colour for _, colour in parts]), 0, 255)
        fill_polygons(canvas, instances, np.stack(polygons), colours, NOTHING)


def blend(canvas: np.ndarray, instances: np.ndarray, patch: np.ndarray, corner: tuple[int, int], instance: int) -> int:
    """Lay a premultiplied BGRA patch (h, w, 4) uint8 over the canvas at (left, top); returns pixels mostly covered."""
    left, top = corner
    view = (slice(top, top + patch.shape[0]), slice(left, left + patch.shape[1]))
    b, g, r, alpha = cv2.split(patch)
    keep = cv2.bitwise_not(alpha)
    background = cv2.multiply(canvas[view], cv2.merge([keep] * 3), scale=1 / 255)
    canvas[view] = cv2.add(background, cv2.merge([b, g, r]))
    covered = alpha >= 128
    np.copyto(instances[view], np.uint16(instance), where=covered)
    return int(np.count_nonzero(covered))
