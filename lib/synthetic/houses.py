"""Houses: facades warped onto walls in true perspective, with gables and roofs."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ..structures import Calibration
from .raster import NOTHING, blend, clip_near, fill_mixed
from .scene import Prop, Scene
from .textures import detail_pyramids

_FACADE_PX_PER_M = 30


def draw_house(canvas: np.ndarray, instances: np.ndarray, scene: Scene, prop: Prop) -> None:
    """Front wall towards the road, gable wall towards the camera, and a roof or a flat top."""
    start, end = np.array([prop.x, prop.z]), np.array(prop.end)
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    outward = np.array([-along[1], along[0]]) * (1.0 if prop.x < 0 else -1.0)
    depth_m = 9.0
    length = float(np.linalg.norm(end - start))
    front, gable = (
        _facade(prop.variant, round(length, 1), round(prop.size, 1)),
        _facade(prop.variant + 50, depth_m, round(prop.size, 1)),
    )
    sun = np.asarray(scene.lighting.sun)
    if prop.variant % 3:
        _draw_roof(canvas, instances, scene, prop, (start, end, outward * depth_m))
    for (a, b), texture in (((start, start + outward * depth_m), gable), ((start, end), front)):
        tangent = (b - a) / np.linalg.norm(b - a)
        normal = np.array([-tangent[1], 0.0, tangent[0]])
        if normal[0] * a[0] + normal[2] * a[1] > 0:
            normal = -normal
        light = scene.lighting.ambient * 0.8 + scene.lighting.sun_strength * max(float(normal @ sun), 0.0)
        wall = (np.array([a[0], 0.0, a[1]]), np.array([b[0], 0.0, b[1]]), prop.size)
        _draw_wall(canvas, instances, scene, wall, texture, np.asarray(prop.colour) * light)


def _draw_roof(
    canvas: np.ndarray,
    instances: np.ndarray,
    scene: Scene,
    prop: Prop,
    plan: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    start, end, back = plan
    level = scene.ground.y_at(float(start[0]), float(start[1])) - prop.size
    ridge = level - 3.2

    def point(xz: np.ndarray, y: float) -> list[float]:
        return [float(xz[0]), y, float(xz[1])]

    slope = np.array(
        [point(start, level), point(end, level), point(end + back / 2, ridge), point(start + back / 2, ridge)]
    )
    triangle = np.array([point(start, level), point(start + back, level), point(start + back / 2, ridge)])
    light = 0.5 * scene.lighting.ambient + 0.35 * scene.lighting.sun_strength
    tiles = np.array([(0.22, 0.26, 0.48), (0.25, 0.25, 0.28), (0.20, 0.22, 0.36)][prop.variant % 3])
    parts = []
    for polygon, colour in ((triangle, np.asarray(prop.colour) * 0.9), (slope, tiles * 1.3)):
        clipped = clip_near(polygon, 1.0)
        if len(clipped) >= 3:
            parts.append((scene.calibration.project(clipped), colour * light * 255 * 1.4))
    fill_mixed(canvas, instances, parts)


def _draw_wall(
    canvas: np.ndarray,
    instances: np.ndarray,
    scene: Scene,
    wall: tuple[np.ndarray, np.ndarray, float],
    facade: tuple[np.ndarray, ...],
    tint: np.ndarray,
) -> None:
    """Warp a facade image onto a vertical rectangle: the plane's own homography, so perspective is exact."""
    start, end, tall = wall
    length = float(np.linalg.norm(end - start))
    tangent = (end - start) / length
    ground_start = scene.ground.y_at(start[0], start[2]) + 0.05
    base = np.array([start[0], ground_start, start[2]])
    slope = scene.ground.y_at(end[0], end[2]) + 0.05 - ground_start
    direction = tangent + np.array([0.0, slope / length, 0.0])
    outline = np.stack([base, base + direction * length, base + direction * length, base])
    outline[2:, 1] -= tall
    visible = clip_near(outline, 1.0)
    if len(visible) < 3:
        return
    polygon = scene.calibration.project(visible)
    height, width = canvas.shape[:2]
    x0, y0 = np.maximum(np.floor(polygon.min(axis=0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(polygon.max(axis=0)) + 1, (width, height)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    pixels_per_m = scene.calibration.fv / max(float(np.median(visible[:, 2])), 1.0)
    level = int(np.clip(np.round(np.log2(max(_FACADE_PX_PER_M / pixels_per_m, 1.0))), 0, len(facade) - 1))
    texture = facade[level]
    top = base - np.array([0.0, tall, 0.0])
    right, down = direction * (length / texture.shape[1]), np.array([0.0, tall / texture.shape[0], 0.0])
    homography = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ _homography(scene.calibration, top, right, down)
    image = cv2.warpPerspective(texture, homography, (int(x1 - x0), int(y1 - y0)), borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros(image.shape[:2], np.uint8)
    corners = np.round((polygon - (x0, y0)) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_AA, 4)
    tinted = cv2.transform(image, np.diag(tint))
    premultiplied = cv2.multiply(tinted, cv2.merge([mask] * 3), scale=1 / 255)
    blend(canvas, instances, cv2.merge([*cv2.split(premultiplied), mask]), (int(x0), int(y0)), NOTHING)


def _homography(calibration: Calibration, origin: np.ndarray, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Texture pixel (s, t), standing for origin + s right + t down [m], -> pixel of the image, (3, 3).

    Like ``Calibration.project`` it divides by the point's z, not by P2's third row.
    """
    homography = np.vstack([calibration.P2[:2, :3], [0, 0, 1]]) @ np.stack([right, down, origin], axis=1)
    homography[:2, 2] += calibration.P2[:2, 3]
    return homography


@lru_cache(maxsize=256)
def _facade(variant: int, length: float, tall: float) -> tuple[np.ndarray, ...]:
    """The wall's image as mip levels."""
    levels = [_paint_facade(variant, length, tall)]
    while len(levels) < 5 and min(levels[-1].shape[:2]) > 16:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(levels)


def _paint_facade(variant: int, length: float, tall: float) -> np.ndarray:
    """A plastered or brick wall with rows of windows, a door and a plinth: (tall, length) x 30 px/m, uint8 BGR."""
    rng = np.random.default_rng((20174, variant))
    width, height = max(int(length * _FACADE_PX_PER_M), 8), max(int(tall * _FACADE_PX_PER_M), 8)
    kind = "brick" if variant % 4 == 0 else "asphalt"
    detail = detail_pyramids()[kind][1]
    strength = 1.0 if kind == "brick" else 0.35
    tiled = np.tile(detail, (height // detail.shape[0] + 1, width // detail.shape[1] + 1))[:height, :width]
    wall = 205 * (1 + strength * (tiled - 1))
    image = np.clip(np.repeat(wall[..., None], 3, axis=2), 0, 255).astype(np.uint8)
    storey, pitch = rng.uniform(2.8, 3.2), rng.uniform(2.2, 3.6)
    frame = (235, 235, 235) if variant % 2 else (90, 100, 110)
    pane_w, pane_h = rng.uniform(0.9, 1.3), rng.uniform(1.2, 1.6)
    scale = _FACADE_PX_PER_M
    for floor in range(int((tall - 0.4) // storey) or 1):
        for column in range(int((length - 0.6) // pitch)):
            x = 0.7 + column * pitch
            y = tall - floor * storey - 1.0 - pane_h
            door = floor == 0 and column % 4 == variant % 4
            low = tall if door else y + pane_h
            box = [int(v * scale) for v in (x, y, x + pane_w, low)]
            if box[1] < 4:
                continue
            dark = int(rng.integers(35, 75))
            glass = (60, 75, 95) if door else (dark + 14, dark + 6, dark)
            cv2.rectangle(image, (box[0] - 3, box[1] - 3), (box[2] + 3, box[3] + 4), frame, -1)
            cv2.rectangle(image, (box[0], box[1]), (box[2], box[3]), glass, -1)
            if not door:
                cv2.rectangle(
                    image, (box[0], box[1]), (box[2], box[1] + int(0.3 * pane_h * scale)), (dark + 60,) * 3, -1
                )
                cv2.line(image, ((box[0] + box[2]) // 2, box[1]), ((box[0] + box[2]) // 2, box[3]), frame, 2)
    plinth = int(0.5 * scale)
    image[height - plinth :] = (image[height - plinth :] * 0.6).astype(np.uint8)
    return image
