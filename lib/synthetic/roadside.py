"""Sky, distant hills, trees, poles and signs: clutter without labels."""

from __future__ import annotations

import cv2
import numpy as np

from .houses import draw_house
from .raster import NOTHING, blend, fill_mixed
from .scene import Prop, Scene
from .textures import fractal_noise, tree_sprites


def horizon_row(scene: Scene) -> float:
    """Row [px] of the ground plane's horizon in the middle of the image."""
    return scene.calibration.cv + scene.calibration.fv * scene.ground.pitch


def draw_sky(canvas: np.ndarray, scene: Scene) -> None:
    """Gradient, clouds, and a dark line of far trees or hills along the horizon."""
    height, width = canvas.shape[:2]
    rng = np.random.default_rng((*scene.seed, 2))
    rows = int(np.clip(horizon_row(scene) + 0.02 * height, 1, height))
    # clouds are soft: a quarter of the resolution is enough
    coarse = (width // 4 + 1, rows // 4 + 1)
    t = np.linspace(0, 1, coarse[1], dtype=np.float32)[:, None, None]
    sky = np.asarray(scene.look.sky_top, np.float32) * (1 - t) + np.asarray(scene.look.sky_low, np.float32) * t
    noise = fractal_noise()
    top, left = rng.integers(0, 256, 2)
    cloud = cv2.resize(noise[top : top + 160, left : left + 256], coarse, interpolation=cv2.INTER_LINEAR)
    cover = (scene.look.clouds * np.clip(cloud * 1.8 - 0.5, 0, 1))[..., None]
    image = cv2.convertScaleAbs(sky * (1 - cover) + cover, alpha=255)
    canvas[:rows] = cv2.resize(image, (width, rows), interpolation=cv2.INTER_LINEAR)
    canvas[rows:] = 128
    _draw_far_line(canvas, scene, rng)


def _draw_far_line(canvas: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    scale = scene.calibration.fv / 721.5
    base = horizon_row(scene)
    bottom = base + 0.08 * height  # the ground surely covers what is below the horizon, rolled horizons included
    columns = np.arange(0, width + 2, 2)
    u = columns / (width / 1242.0)
    for tallness, colour in ((26, (0.42, 0.40, 0.34)), (17, (0.20, 0.26, 0.21)), (13, (0.15, 0.20, 0.15))):
        row, fine = (fractal_noise()[int(i)] for i in rng.integers(0, 512, 2))
        profile = np.interp(u * 0.25 % 512, np.arange(512), row) + 0.3 * np.interp(u * 1.9 % 512, np.arange(512), fine)
        tops = base - tallness * scale * rng.uniform(0.4, 1.3) * (0.3 + profile)
        outline = np.concatenate([np.stack([columns, tops], axis=1), [[width + 2, bottom], [-2, bottom]]])
        shade = np.asarray(colour) * rng.uniform(0.8, 1.1) * 255
        cv2.fillPoly(canvas, [np.round(outline * 16).astype(np.int32)], shade.tolist(), cv2.LINE_AA, 4)


def draw_prop(canvas: np.ndarray, instances: np.ndarray, scene: Scene, prop: Prop) -> None:
    """Paint one piece of clutter."""
    if prop.kind == "house":
        draw_house(canvas, instances, scene, prop)
    elif prop.kind in ("tree", "bush"):
        _draw_tree(canvas, instances, scene, prop)
    else:
        _draw_post(canvas, instances, scene, prop)


def _draw_tree(canvas: np.ndarray, instances: np.ndarray, scene: Scene, prop: Prop) -> None:
    """A sprite standing on the ground, scaled by its distance."""
    if prop.z < 2:
        return
    sprites = tree_sprites()
    pyramid = sprites[-1 - prop.variant % 2] if prop.kind == "bush" else sprites[prop.variant % (len(sprites) - 2)]
    foot = scene.calibration.project(np.array([[prop.x, scene.ground.y_at(prop.x, prop.z), prop.z]]))[0]
    tall = prop.size * scene.calibration.fv / prop.z
    ratio = scene.calibration.fu / scene.calibration.fv
    level = int(np.clip(np.floor(np.log2(max(pyramid[0].shape[0] / tall, 1.0))), 0, len(pyramid) - 1))
    sprite = pyramid[level]
    if prop.variant & 8:
        sprite = np.ascontiguousarray(sprite[:, ::-1])
    scale_y, scale_x = tall / sprite.shape[0], tall * ratio / sprite.shape[0]
    left, top = foot[0] - scale_x * sprite.shape[1] / 2, foot[1] - tall
    x0, y0 = int(max(np.floor(left), 0)), int(max(np.floor(top), 0))
    x1 = int(min(np.ceil(left + scale_x * sprite.shape[1]), canvas.shape[1]))
    y1 = int(min(np.ceil(foot[1]), canvas.shape[0]))
    if x1 <= x0 or y1 <= y0:
        return
    matrix = np.array([[scale_x, 0, left - x0], [0, scale_y, top - y0]])
    patch = cv2.warpAffine(sprite, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    light = scene.lighting
    lit = light.ambient + 0.8 * light.sun_strength
    patch[..., :3] = np.minimum(cv2.convertScaleAbs(patch[..., :3], alpha=lit), patch[..., 3:])
    blend(canvas, instances, patch, (x0, y0), NOTHING)


def _draw_post(canvas: np.ndarray, instances: np.ndarray, scene: Scene, prop: Prop) -> None:
    """A pole, a street lamp with its arm, or a traffic sign."""
    if prop.z < 2:
        return
    ground = scene.ground.y_at(prop.x, prop.z)
    radius = 0.06 if prop.kind == "sign" else 0.09
    light = scene.lighting.ambient + 0.6 * scene.lighting.sun_strength
    grey = np.asarray(prop.colour) * light * 255

    def quad(x0: float, x1: float, low: float, high: float) -> np.ndarray:
        corners = [(x0, ground - low, prop.z), (x1, ground - low, prop.z)]
        corners += [(x1, ground - high, prop.z), (x0, ground - high, prop.z)]
        return scene.calibration.project(np.array(corners))

    x, towards_road = prop.x, -1.0 if prop.variant % 2 else 1.0
    parts = [(quad(x - radius, x, 0, prop.size), 0.8 * grey), (quad(x, x + radius, 0, prop.size), 1.15 * grey)]
    if prop.kind == "lamp":
        arm = sorted((x, x + 1.8 * towards_road))
        parts.append((quad(arm[0], arm[1], prop.size - 0.1, prop.size), grey))
        head = sorted((x + 1.2 * towards_road, x + 1.9 * towards_road))
        parts.append((quad(head[0], head[1], prop.size - 0.2, prop.size - 0.05), 1.3 * grey))
    if prop.kind == "sign":
        parts.extend(_sign_board(scene, prop, ground, light))
    fill_mixed(canvas, instances, parts)


def _sign_board(scene: Scene, prop: Prop, ground: float, light: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Board and inner field of a round, triangular or square sign, as polygons with colours."""
    corners, outer, inner = (
        (12, (0.1, 0.1, 0.75), (0.9, 0.9, 0.9)),
        (3, (0.1, 0.1, 0.75), (0.9, 0.9, 0.9)),
        (4, (0.7, 0.3, 0.1), (0.9, 0.9, 0.9)),
        (12, (0.65, 0.3, 0.1), (0.7, 0.35, 0.15)),
    )[prop.variant % 4]
    angles = np.arange(corners) * (2 * np.pi / corners) + {3: -np.pi / 2, 4: np.pi / 4}.get(corners, 0.0)
    parts = []
    for radius, colour in ((0.35, outer), (0.24, inner)):
        points = np.stack(
            [
                prop.x + radius * np.cos(angles),
                ground - prop.size + 0.3 + radius * np.sin(angles),
                np.full(corners, prop.z - 0.08),
            ],
            axis=1,
        )
        parts.append((scene.calibration.project(points), np.asarray(colour) * light * 255))
    return parts
