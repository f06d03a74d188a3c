"""Shadows of the objects on the ground: a dark contact patch below each, and a cast shadow away from the sun."""

from __future__ import annotations

import cv2
import numpy as np

from ..structures import Calibration, Object3d
from .raster import clip_near
from .scene import Scene

_CONTACT = 235
"""darkness below an object, 0..255"""


def draw_shadows(canvas: np.ndarray, scene: Scene) -> None:
    """Darken ``canvas`` (H, W, 3) uint8, on which only the ground is painted yet, where objects keep the light off."""
    height, width = canvas.shape[:2]
    sun = np.asarray(scene.lighting.sun)
    total = scene.lighting.ambient + scene.lighting.sun_strength * max(-float(sun[1]), 0.0)
    cast_darkness = int(255 * 0.9 * scene.lighting.sun_strength * max(-float(sun[1]), 0.0) / total)
    mask = np.zeros((height // 2 + 1, width // 2 + 1), np.uint8)
    for prop in scene.props:
        if prop.kind in ("tree", "bush") and cast_darkness > 40:
            _fill(mask, _tree_shadow(scene, prop.x, prop.z, prop.size, sun), scene.calibration, cast_darkness)
    for item in scene.objects:
        _fill(mask, _cast_outline(item, sun), scene.calibration, cast_darkness)
    for item in scene.objects:
        _fill(mask, _footprint(item, 1.06), scene.calibration, _CONTACT)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.1)
    keep = cv2.resize(255 - mask, (width, height), interpolation=cv2.INTER_LINEAR)
    top = int(np.argmax(mask.max(axis=1) > 0)) * 2
    canvas[top:] = cv2.multiply(canvas[top:], cv2.merge([keep[top:]] * 3), scale=1 / 255)


def _footprint(item: Object3d, grow: float) -> np.ndarray:
    """Bottom face (4, 3) [m], enlarged about its centre."""
    bottom = item.corners_cam()[:4]
    centre = bottom.mean(axis=0)
    return centre + grow * (bottom - centre)


def _cast_outline(item: Object3d, sun: np.ndarray) -> np.ndarray:
    """Convex outline (n, 3) [m] of the shadow on the plane below the object."""
    bottom = item.corners_cam()[:4]
    centre = bottom.mean(axis=0)
    # roofs are narrower than bodies
    top = centre + 0.75 * (bottom - centre)
    length = 0.92 * item.dimensions[0] / max(-float(sun[1]), 0.3)
    top = top - length * np.array([sun[0], 0.0, sun[2]])
    points = np.concatenate([0.94 * (bottom - centre) + centre, top])
    hull = cv2.convexHull(points[:, [0, 2]].astype(np.float32), returnPoints=False)[:, 0]
    return points[hull]


def _tree_shadow(scene: Scene, x: float, z: float, size: float, sun: np.ndarray) -> np.ndarray:
    """An ellipse on the ground where the crown's shadow falls, (16, 3) [m]."""
    length = 0.6 * size / max(-float(sun[1]), 0.3)
    angles = np.arange(16) * (np.pi / 8)
    xs = x - length * sun[0] + 0.30 * size * np.cos(angles)
    zs = z - length * sun[2] + 0.36 * size * np.sin(angles)
    ground = scene.ground
    return np.stack([xs, ground.height + ground.roll * xs + ground.pitch * zs, zs], axis=1)


def _fill(mask: np.ndarray, outline_cam: np.ndarray, calibration: Calibration, darkness: int) -> None:
    """Raise the half-size mask to ``darkness`` inside a convex ground polygon."""
    outline = clip_near(outline_cam, near=0.8)
    if len(outline) < 3:
        return
    half = calibration.project(outline) * 0.5 - 0.25
    corners = np.round(np.clip(half, -20000, 20000) * 16).astype(np.int32)
    layer = cv2.boundingRect((corners // 16).astype(np.int32))
    left, top = max(layer[0] - 1, 0), max(layer[1] - 1, 0)
    right, bottom = min(layer[0] + layer[2] + 2, mask.shape[1]), min(layer[1] + layer[3] + 2, mask.shape[0])
    if right <= left or bottom <= top:
        return
    patch = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(patch, corners - np.array([left, top]) * 16, darkness, cv2.LINE_AA, 4)
    view = mask[top:bottom, left:right]
    np.maximum(view, patch, out=view)
