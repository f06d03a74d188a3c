"""Painting on a canvas: near-plane clipping, projection, antialiased filling, and shaded solids."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..structures import Calibration, Object3d
from .scene import Lighting, Scene
from .solids import Solid

NEAR_M = 0.3  # nothing nearer than this is drawn [m]
Box = tuple[float, float, float, float]
_SHIFT = 4  # fractional bits of OpenCV's polygon corners


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image under construction, and which object each of its pixels shows."""

    image: np.ndarray  # (H, W, 3) uint8 BGR
    instances: np.ndarray  # (H, W) uint16; 0: ground, sky and props


def clip_near(polygon_cam: np.ndarray, near: float = NEAR_M) -> np.ndarray:
    """The part of a polygon (M, 3) [m] with z >= near: (M', 3), empty when nothing is left."""
    if polygon_cam[:, 2].min() >= near:
        return polygon_cam
    kept = []
    for start, end in zip(polygon_cam, np.roll(polygon_cam, -1, axis=0), strict=True):
        if start[2] >= near:
            kept.append(start)
        if (start[2] >= near) != (end[2] >= near):
            kept.append(start + (near - start[2]) / (end[2] - start[2]) * (end - start))
    return np.array(kept).reshape(-1, 3)


def project_faces(corners_cam: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Faces (F, M, 3) [m] -> polygons (F, M + 1, 2) [px], clipped at the near plane.

    Polygons with fewer corners repeat their last one. Faces wholly behind the plane are NaN.
    """
    behind = corners_cam[..., 2].min(axis=1) < NEAR_M
    safe = np.where(behind[:, None, None], 1.0, corners_cam)
    polygons = calibration.project(safe.reshape(-1, 3)).reshape(*corners_cam.shape[:2], 2)
    polygons = np.concatenate([polygons, polygons[:, -1:]], axis=1)
    for i in np.flatnonzero(behind):
        clipped = clip_near(corners_cam[i])
        polygons[i] = np.nan
        if len(clipped) >= 3:
            polygon = calibration.project(clipped)
            polygons[i, : len(polygon)], polygons[i, len(polygon) :] = polygon, polygon[-1]
    return polygons


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
    return solid.colours * diffuse[:, None] + np.outer(fresnel, lighting.sky_colour) + 0.8 * highlight[:, None]


def draw_solid(canvas: Canvas, scene: Scene, item: Object3d, solid: Solid, instance: int) -> tuple[int, Box] | None:
    """Paint a solid in the object's pose over the canvas and write ``instance`` to the pixels that it covers.

    Returns the number of pixels that it covers, and the tight box (x1, y1, x2, y2) [px] around its projection, not
    clipped to the image; None when the solid lies behind the near plane.
    """
    location, cos, sin = np.asarray(item.location_cam), math.cos(item.rotation_y), math.sin(item.rotation_y)
    to_camera = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]]).T
    corners, normals = solid.corners @ to_camera + location, solid.normals @ to_camera
    centres = solid.part_centres @ to_camera + location
    # faces that look at the camera: layer by layer, and within a layer far parts first
    camera = np.array([scene.calibration.tx, scene.calibration.ty, 0.0])
    order = np.lexsort((-np.linalg.norm(centres, axis=1), solid.layers))
    order = order[(np.einsum("fi,fi->f", normals, corners[:, 0] - camera) < 0)[order]]
    colours = np.clip(shade(solid, corners, normals, scene.lighting) * 255, 0, 255)[order]
    polygons = project_faces(corners[order], scene.calibration)
    kept = ~np.isnan(polygons[:, 0, 0])
    if not kept.any():
        return None
    polygons = polygons[kept]
    (x1, y1), (x2, y2) = polygons.min(axis=(0, 1)), polygons.max(axis=(0, 1))
    pixels = fill_polygons(canvas, polygons, colours[kept], instance)
    return pixels, (float(x1), float(y1), float(x2), float(y2))


def patch_bounds(
    points_img: np.ndarray, image: np.ndarray, margin: tuple[int, int] = (1, 2)
) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) [px] of an image around points (..., 2) and a margin (before, after), or None."""
    points = points_img.reshape(-1, 2)
    left, top = np.maximum(np.floor(points.min(axis=0)) - margin[0], 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(points.max(axis=0)) + margin[1], image.shape[1::-1]).astype(int).tolist()
    return (left, top, right, bottom) if right > left and bottom > top else None


def fill_polygons(canvas: Canvas, polygons: np.ndarray, colours: np.ndarray, instance: int) -> int:
    """Fill convex polygons (N, M, 2) [px] in order, antialiased by supersampling a patch around them.

    ``colours``: (N, 3) BGR, 0..255. Returns the number of pixels that are at least half covered.
    """
    bounds = patch_bounds(polygons, canvas.image)
    if bounds is None:
        return 0
    left, top, right, bottom = bounds
    scale = 4 if (right - left) * (bottom - top) < 4000 else 2
    # the fourth channel collects the silhouette
    patch = np.zeros(((bottom - top) * scale, (right - left) * scale, 4), np.uint8)
    fine = (((polygons - (left, top) + 0.5) * scale - 0.5) * (1 << _SHIFT)).round().astype(np.int32)
    for polygon, (b, g, r) in zip(fine, colours.tolist(), strict=True):
        cv2.fillConvexPoly(patch, polygon, (b, g, r, 255), cv2.LINE_8, _SHIFT)
    small = cv2.resize(patch, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return blend(canvas, small, (left, top), instance)


def fill_prop(canvas: Canvas, scene: Scene, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Fill the faces (M, 3) [m, camera frame] of a prop with their colours (BGR, 0..255), in order."""
    clipped = [(clip_near(face, 1.0), colour) for face, colour in parts]
    visible = [(scene.calibration.project(face), colour) for face, colour in clipped if len(face) >= 3]
    if visible:
        longest = max(len(polygon) for polygon, _ in visible)
        polygons = [np.concatenate([p, np.repeat(p[-1:], longest - len(p), axis=0)]) for p, _ in visible]
        fill_polygons(canvas, np.stack(polygons), np.clip([colour for _, colour in visible], 0, 255), 0)


def blend(canvas: Canvas, patch: np.ndarray, corner: tuple[int, int], instance: int = 0) -> int:
    """Blend a premultiplied BGRA patch (h, w, 4) uint8 over the canvas at ``corner`` (left, top) [px].

    Returns the number of pixels that are at least half covered; ``instance`` is written to them.
    """
    left, top = corner
    view = (slice(top, top + patch.shape[0]), slice(left, left + patch.shape[1]))
    b, g, r, alpha = cv2.split(patch)
    keep = cv2.bitwise_not(alpha)
    background = cv2.multiply(canvas.image[view], cv2.merge([keep] * 3), scale=1 / 255)
    canvas.image[view] = cv2.add(background, cv2.merge([b, g, r]))
    covered = alpha >= 128
    np.copyto(canvas.instances[view], np.uint16(instance), where=covered)
    return int(np.count_nonzero(covered))
