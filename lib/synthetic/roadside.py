"""Everything without a label except the ground: sky, distant hills, trees, poles, signs and houses."""

from functools import lru_cache

import cv2
import numpy as np

from ..structures import Calibration
from ..structures.camera import KITTI_SIZE
from .raster import Canvas, blend, clip_near, fill_prop, patch_bounds
from .scene import Prop, Scene
from .solids import circle, end_quad, points
from .textures import REFERENCE_FOCAL_PX, detail_pyramids, fractal_noise, mip_level, mip_levels, tree_sprites

_FACADE_PX_PER_M = 30
_DEPTH_M = 9.0
_ROOFS = ((0.25, 0.25, 0.28), (0.20, 0.22, 0.36))  # BGR, 0..1


def draw_sky(image: np.ndarray, scene: Scene) -> None:
    """Fill ``image`` (H, W, 3) uint8: gradient, clouds, and dark lines of far hills and trees along the horizon."""
    height, width = image.shape[:2]
    rng = np.random.default_rng((*scene.seed, 2))
    horizon = scene.calibration.cv + scene.calibration.fv * scene.ground.pitch
    rows = int(np.clip(horizon + 0.02 * height, 1, height))
    # clouds are soft: a quarter of the resolution is enough
    coarse = (width // 4 + 1, rows // 4 + 1)
    t = np.linspace(0, 1, coarse[1], dtype=np.float32)[:, None, None]
    sky = np.asarray(scene.look.sky_top, np.float32) * (1 - t) + np.asarray(scene.look.sky_low, np.float32) * t
    top, left = rng.integers(0, 256, 2)
    cloud = cv2.resize(fractal_noise()[top : top + 160, left : left + 256], coarse, interpolation=cv2.INTER_LINEAR)
    cover = (scene.look.clouds * np.clip(cloud * 1.8 - 0.5, 0, 1))[..., None]
    clouded = cv2.convertScaleAbs(sky * (1 - cover) + cover, alpha=255)
    image[:rows] = cv2.resize(clouded, (width, rows), interpolation=cv2.INTER_LINEAR)
    image[rows:] = 128
    _draw_far_lines(image, horizon, scene.calibration.fv / REFERENCE_FOCAL_PX, rng)


def _draw_far_lines(image: np.ndarray, horizon: float, scale: float, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    # the ground is painted over everything below the horizon, also where it is rolled
    bottom = horizon + 0.08 * height
    columns, cells = np.arange(0, width + 2, 2), np.arange(512)
    u = columns / (width / KITTI_SIZE[0])
    for tallness, colour in ((26, (0.42, 0.40, 0.34)), (17, (0.20, 0.26, 0.21)), (13, (0.15, 0.20, 0.15))):
        row, fine = (fractal_noise()[int(i)] for i in rng.integers(0, 512, 2))
        profile = np.interp(u * 0.25 % 512, cells, row) + 0.3 * np.interp(u * 1.9 % 512, cells, fine)
        tops = horizon - tallness * scale * rng.uniform(0.4, 1.3) * (0.3 + profile)
        outline = np.concatenate([np.stack([columns, tops], axis=1), [[width + 2, bottom], [-2, bottom]]])
        shade = np.asarray(colour) * rng.uniform(0.8, 1.1) * 255
        cv2.fillPoly(image, [np.round(outline * 16).astype(np.int32)], shade.tolist(), cv2.LINE_AA, 4)


def draw_prop(canvas: Canvas, scene: Scene, prop: Prop) -> None:
    """Paint one prop over the canvas."""
    draw = {"house": _draw_house, "tree": _draw_tree, "bush": _draw_tree}.get(prop.kind, _draw_post)
    if prop.kind == "house" or prop.z >= 2:
        draw(canvas, scene, prop)


def _draw_tree(canvas: Canvas, scene: Scene, prop: Prop) -> None:
    """A sprite that stands on the ground and is scaled by its depth."""
    sprites = tree_sprites()
    levels = sprites[-1 - prop.variant % 2] if prop.kind == "bush" else sprites[prop.variant % (len(sprites) - 2)]
    foot = scene.calibration.project(np.array([[prop.x, scene.ground.y_at(prop.x, prop.z), prop.z]]))[0]
    tall = prop.size * scene.calibration.fv / prop.z
    ratio = scene.calibration.fu / scene.calibration.fv
    sprite = levels[int(mip_level(levels[0].shape[0] / tall, len(levels), offset=0.0))]
    if prop.variant & 8:
        sprite = np.ascontiguousarray(sprite[:, ::-1])
    scale_y, scale_x = tall / sprite.shape[0], tall * ratio / sprite.shape[0]
    left, top = foot[0] - scale_x * sprite.shape[1] / 2, foot[1] - tall
    outline = np.array([[left, top], [left + scale_x * sprite.shape[1], foot[1]]])
    bounds = patch_bounds(outline, canvas.image, margin=(0, 0))
    if bounds is None:
        return
    x0, y0, x1, y1 = bounds
    matrix = np.array([[scale_x, 0, left - x0], [0, scale_y, top - y0]])
    patch = cv2.warpAffine(sprite, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    lit = scene.lighting.ambient + 0.8 * scene.lighting.sun_strength
    patch[..., :3] = np.minimum(cv2.convertScaleAbs(patch[..., :3], alpha=lit), patch[..., 3:])
    blend(canvas, patch, (x0, y0))


def _draw_post(canvas: Canvas, scene: Scene, prop: Prop) -> None:
    """A pole, a street lamp with its arm, or a traffic sign."""
    ground = scene.ground.y_at(prop.x, prop.z)
    radius = 0.06 if prop.kind == "sign" else 0.09
    light = scene.lighting.ambient + 0.6 * scene.lighting.sun_strength
    grey = np.asarray(prop.colour) * light * 255

    def quad(x0: float, x1: float, low: float, high: float) -> np.ndarray:
        return end_quad(prop.z, (ground - low, ground - high), (x0, x1))[:, ::-1]

    x, to_road = prop.x, -1.0 if prop.variant % 2 else 1.0
    parts = [(quad(x - radius, x, 0, prop.size), 0.8 * grey), (quad(x, x + radius, 0, prop.size), 1.15 * grey)]
    if prop.kind == "lamp":
        arm, head = sorted((x, x + 1.8 * to_road)), sorted((x + 1.2 * to_road, x + 1.9 * to_road))
        parts.append((quad(arm[0], arm[1], prop.size - 0.1, prop.size), grey))
        parts.append((quad(head[0], head[1], prop.size - 0.2, prop.size - 0.05), 1.3 * grey))
    if prop.kind == "sign":
        parts += _sign_board(prop, ground, light)
    fill_prop(canvas, scene, parts)


def _sign_board(prop: Prop, ground: float, light: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Board and inner field of a round, triangular or square sign: faces (M, 3) with colours."""
    corners, start, outer, inner = (
        (12, 0.0, (0.1, 0.1, 0.75), (0.9, 0.9, 0.9)),
        (3, -np.pi / 2, (0.1, 0.1, 0.75), (0.9, 0.9, 0.9)),
        (4, np.pi / 4, (0.7, 0.3, 0.1), (0.9, 0.9, 0.9)),
        (12, 0.0, (0.65, 0.3, 0.1), (0.7, 0.35, 0.15)),
    )[prop.variant % 4]
    cos, sin = circle(corners, start).T
    boards = (points(prop.x + r * cos, ground - prop.size + 0.3 + r * sin, prop.z - 0.08) for r in (0.35, 0.24))
    return [(board, np.asarray(colour) * light * 255) for board, colour in zip(boards, (outer, inner), strict=True)]


def _draw_house(canvas: Canvas, scene: Scene, prop: Prop) -> None:
    """Front wall towards the road, gable wall towards the camera, and a roof or a flat top."""
    start, end = np.array([prop.x, 0.0, prop.z]), np.array([prop.end[0], 0.0, prop.end[1]])
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    back = np.array([-along[2], 0.0, along[0]]) * (1.0 if prop.x < 0 else -1.0) * _DEPTH_M
    if prop.variant % 3:
        eaves = np.array([0.0, scene.ground.y_at(prop.x, prop.z) - prop.size, 0.0])
        ridge = eaves - (0.0, 3.2, 0.0)
        near, far = start + back / 2 + ridge, end + back / 2 + ridge
        slope = np.array([start + eaves, end + eaves, far, near])
        triangle = np.array([start + eaves, start + back + eaves, near])
        light = 0.5 * scene.lighting.ambient + 0.35 * scene.lighting.sun_strength
        parts = ((triangle, np.array(prop.colour) * 0.9), (slope, np.array(_ROOFS[prop.variant % 3 - 1]) * 1.3))
        fill_prop(canvas, scene, [(face, colour * light * 255 * 1.4) for face, colour in parts])
    _draw_wall(canvas, scene, prop, start, start + back, prop.variant + 50)
    _draw_wall(canvas, scene, prop, start, end, prop.variant)


def _draw_wall(canvas: Canvas, scene: Scene, prop: Prop, start: np.ndarray, end: np.ndarray, variant: int) -> None:
    """Warp a facade image onto the wall from ``start`` to ``end`` (3,) [m, camera frame] by the plane's homography."""
    light, length, tall = scene.lighting, float(np.linalg.norm(end - start)), prop.size
    tangent = (end - start) / length
    normal = np.array([-tangent[2], 0.0, tangent[0]])
    normal = -normal if normal @ start > 0 else normal
    tint = np.asarray(prop.colour) * (light.ambient * 0.8 + light.sun_strength * max(float(normal @ light.sun), 0.0))
    base = np.array([start[0], scene.ground.y_at(start[0], start[2]) + 0.05, start[2]])
    slope = scene.ground.y_at(end[0], end[2]) + 0.05 - base[1]
    direction = tangent + np.array([0.0, slope / length, 0.0])
    outline = np.stack([base, base + direction * length, base + direction * length, base])
    outline[2:, 1] -= tall
    visible = clip_near(outline, 1.0)
    if len(visible) < 3:
        return
    polygon = scene.calibration.project(visible)
    bounds = patch_bounds(polygon, canvas.image, margin=(0, 1))
    if bounds is None:
        return
    x0, y0, x1, y1 = bounds
    pixels_per_m = scene.calibration.fv / max(float(np.median(visible[:, 2])), 1.0)
    facade = _facade(variant, round(length, 1), round(tall, 1))
    texture = facade[int(mip_level(_FACADE_PX_PER_M / pixels_per_m, len(facade)))]
    top = base - np.array([0.0, tall, 0.0])
    right, down = direction * (length / texture.shape[1]), np.array([0.0, tall / texture.shape[0], 0.0])
    homography = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ _homography(scene.calibration, top, right, down)
    warped = cv2.warpPerspective(texture, homography, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros(warped.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.round((polygon - (x0, y0)) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    tinted = cv2.transform(warped, np.diag(tint))
    premultiplied = cv2.multiply(tinted, cv2.merge([mask] * 3), scale=1 / 255)
    blend(canvas, cv2.merge([*cv2.split(premultiplied), mask]), (x0, y0))


def _homography(calibration: Calibration, origin: np.ndarray, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """(3, 3) from the texture pixel (s, t), which lies at origin + s right + t down [m], to the pixel of the image.

    Like ``Calibration.project`` it divides by the point's z, not by P2's third row.
    """
    homography = np.vstack([calibration.P2[:2, :3], [0, 0, 1]]) @ np.stack([right, down, origin], axis=1)
    homography[:2, 2] += calibration.P2[:2, 3]
    return homography


@lru_cache(maxsize=256)
def _facade(variant: int, length: float, tall: float) -> tuple[np.ndarray, ...]:
    """A plastered or brick wall with windows, a door and a plinth, as mip levels of (tall, length) x 30 px/m images."""
    rng = np.random.default_rng((20174, variant))
    width, height = max(int(length * _FACADE_PX_PER_M), 8), max(int(tall * _FACADE_PX_PER_M), 8)
    material, strength = ("brick", 1.0) if variant % 4 == 0 else ("asphalt", 0.35)
    detail = detail_pyramids()[material][1]
    tiled = np.tile(detail, (height // detail.shape[0] + 1, width // detail.shape[1] + 1))[:height, :width]
    wall = 205 * (1 + strength * (tiled - 1))
    image = np.clip(np.repeat(wall[..., None], 3, axis=2), 0, 255).astype(np.uint8)
    storey, pitch = rng.uniform(2.8, 3.2), rng.uniform(2.2, 3.6)
    frame = (235, 235, 235) if variant % 2 else (90, 100, 110)
    pane_w, pane_h = rng.uniform(0.9, 1.3), rng.uniform(1.2, 1.6)
    for floor in range(int((tall - 0.4) // storey) or 1):
        for column in range(int((length - 0.6) // pitch)):
            x = 0.7 + column * pitch
            y = tall - floor * storey - 1.0 - pane_h
            door = floor == 0 and column % 4 == variant % 4
            box = [int(v * _FACADE_PX_PER_M) for v in (x, y, x + pane_w, tall if door else y + pane_h)]
            if box[1] >= 4:
                dark = int(rng.integers(35, 75))
                _paint_opening(image, box, frame, None if door else dark, int(0.3 * pane_h * _FACADE_PX_PER_M))
    plinth = int(0.5 * _FACADE_PX_PER_M)
    image[height - plinth :] = (image[height - plinth :] * 0.6).astype(np.uint8)
    return mip_levels(image, 5, 16)


def _paint_opening(image: np.ndarray, box: list[int], frame: tuple[int, ...], dark: int | None, blind: int) -> None:
    """A window whose glass has the grey level ``dark``, with a blind of ``blind`` rows, or a door (``dark`` None)."""
    x1, y1, x2, y2 = box
    cv2.rectangle(image, (x1 - 3, y1 - 3), (x2 + 3, y2 + 4), frame, -1)
    if dark is None:
        cv2.rectangle(image, (x1, y1), (x2, y2), (60, 75, 95), -1)
        return
    cv2.rectangle(image, (x1, y1), (x2, y2), (dark + 14, dark + 6, dark), -1)
    cv2.rectangle(image, (x1, y1), (x2, y1 + blind), (dark + 60,) * 3, -1)
    cv2.line(image, ((x1 + x2) // 2, y1), ((x1 + x2) // 2, y2), frame, 2)
