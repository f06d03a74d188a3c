"""The ground plane in exact perspective, and the shadows on it.

Every pixel below the horizon is a ray that meets the plane. Colours come from the road's cross-section (a texture over
the lateral coordinate), detail from tiled textures; both are read from mip levels, which prevents aliasing far away.
"""

from functools import lru_cache

import cv2
import numpy as np

from ..structures import Calibration, Object3d
from .raster import clip_near
from .scene import Ground, ImageSize, Marking, Prop, Road, Scene
from .solids import circle, points
from .textures import LEVELS, REFERENCE_FOCAL_PX, detail_pyramids, fractal_noise, mip_level

FAR_M = 300.0  # the ground ends at this depth [m]
_PAINT = 209  # albedo of road paint, 0..255
_TEXEL_M = 0.02
_HALF_WIDTH_M = 60.0
_TILE_M = {"asphalt": 1.7, "grass": 1.8, "brick": 2.2}
_MATERIALS = tuple(_TILE_M)
_CONTACT = 235  # darkness below an object, 0..255


def ground_rays(
    size: ImageSize, calibration: Calibration, ground: Ground
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Intersections of the pixels' rays with the plane, from the first row that shows ground downwards.

    Returns that row; x and z [m, rectified camera] and whether the ray meets the plane, each (H', width).
    """
    width, height = size
    u = (np.arange(width, dtype=np.float32) - np.float32(calibration.cu)) / np.float32(calibration.fu)
    v = (np.arange(height, dtype=np.float32) - np.float32(calibration.cv)) / np.float32(calibration.fv)
    side = ground.pitch + ground.roll * u
    constant = ground.height + ground.roll * calibration.tx - calibration.ty
    first = int(np.searchsorted(v, constant / FAR_M + float(side.min())))
    slope = v[first:, None] - side[None, :]
    valid = slope > constant / FAR_M
    z = np.float32(constant) / np.maximum(slope, np.float32(constant / FAR_M))
    return first, u[None, :] * z + np.float32(calibration.tx), z, valid


def draw_ground(image: np.ndarray, scene: Scene) -> None:
    """Paint the ground over ``image`` (H, W, 3) uint8, without shadows."""
    first, x, z, valid = ground_rays(scene.size, scene.calibration, scene.ground)
    if len(z) == 0:
        return
    lateral = scene.road.lateral_at(x, z).astype(np.float32)
    albedo = _surface(scene, lateral, z)
    for marking in scene.road.markings:
        _paint_marking(albedo, lateral, z, marking, scene)
    colour = cv2.convertScaleAbs(albedo, alpha=scene.lighting.on_ground)
    np.copyto(image[first:], colour, where=valid[..., None])


def _surface(scene: Scene, lateral: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Albedo (H', W, 3) uint8 of the ground: cross-section times detail, row band by row band."""
    sections = _cross_section(scene.road)
    offset = np.float32(np.random.default_rng((*scene.seed, 1)).uniform(0, 500))
    out = np.empty((*z.shape, 3), np.uint8)
    depth = z[:, z.shape[1] // 2]
    # rows on the ground are longer than columns are wide: z / 5 m lies between the two at the reference
    detail_level = mip_level(depth * (REFERENCE_FOCAL_PX / scene.calibration.fu) / 5.0, LEVELS)
    for level in np.unique(detail_level):
        rows = np.flatnonzero(detail_level == level)
        band = slice(int(rows[0]), int(rows[-1]) + 1)
        d, along = lateral[band], z[band] + offset
        mip = int(mip_level(float(np.median(depth[band])) / scene.calibration.fu / _TEXEL_M, len(sections)))
        colours, shares = sections[mip]
        column = ((d + np.float32(_HALF_WIDTH_M)) * np.float32(1 / (_TEXEL_M * 2**mip))).astype(np.int32)
        np.clip(column, 0, len(colours) - 1, out=column)
        share = np.take(shares, column, axis=0)
        # wear and repairs: large soft patches
        detail = 0.89 + 0.22 * _read_tiled("wear", 0, d, along * np.float32(0.45), 24.0)
        for channel, material in enumerate(_MATERIALS):
            if any(strip.material == material for strip in scene.road.strips):
                texture = _read_tiled(material, level, d, along, _TILE_M[material])
                detail *= 1.0 + share[..., channel] * np.float32(1 / 255) * (texture - 1.0)
        scaled = cv2.convertScaleAbs(detail, alpha=128)
        out[band] = cv2.multiply(np.take(colours, column, axis=0), cv2.merge([scaled] * 3), scale=1 / 128)
    return out


@lru_cache(maxsize=64)
def _padded(material: str, level: int) -> np.ndarray:
    """A periodic texture with its first row and column repeated at the end, for interpolation across the seam."""
    texture = fractal_noise() if material == "wear" else detail_pyramids()[material][level]
    return np.pad(texture, ((0, 1), (0, 1)), mode="wrap")


def _read_tiled(material: str, level: int, d: np.ndarray, along: np.ndarray, tile_m: float) -> np.ndarray:
    """Values of a periodic texture at lateral ``d`` and ``along`` [m], float32 of the same shape."""
    texture = _padded(material, level)
    size = np.float32(texture.shape[0] - 1)
    tiles = [metres * np.float32(1 / tile_m) for metres in (d, along)]
    columns, rows = ((t - np.floor(t)) * size for t in tiles)
    return cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _cross_section(road: Road) -> list[tuple[np.ndarray, np.ndarray]]:
    """Colours and shares of the materials over the lateral coordinate, (n, 3) uint8 each, as mip levels."""
    count = int(2 * _HALF_WIDTH_M / _TEXEL_M)
    section = np.zeros((1, count, 6), np.uint8)
    start = 0
    for strip in road.strips:
        end = int(np.clip((strip.end + _HALF_WIDTH_M) / _TEXEL_M, 0, count))
        section[0, start:end, :3] = np.clip(np.asarray(strip.colour) * 255, 0, 255)
        section[0, start:end, 3 + _MATERIALS.index(strip.material)] = 255
        start = max(start, end)
    levels: list[np.ndarray] = [section]
    for _ in range(5):
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=1.0, interpolation=cv2.INTER_AREA))
    return [(level[0, :, :3].copy(), level[0, :, 3:].copy()) for level in levels]


def _paint_marking(albedo: np.ndarray, lateral: np.ndarray, z: np.ndarray, marking: Marking, scene: Scene) -> None:
    """A painted line with analytic antialiasing."""
    pixel_m = z * np.float32(1.0 / scene.calibration.fu)
    reach = 0.5 * marking.width
    ys, xs = np.nonzero(np.abs(lateral - marking.lateral) < reach + pixel_m)
    if len(ys) == 0:
        return
    d, depth, pixel = lateral[ys, xs], z[ys, xs], pixel_m[ys, xs]
    cover = np.clip((reach - np.abs(d - marking.lateral)) / pixel + 0.5, 0, 1) * np.minimum(1, 2 * reach / pixel)
    if marking.dash > 0:
        # the transition between dash and gap is as long as one row of pixels is on the ground
        footprint = depth * depth / (scene.calibration.fv * scene.ground.height)
        phase = (depth + scene.seed[-1] % 7) / marking.dash
        distance = np.abs((phase % 2) - 1) - 0.5
        cover *= np.clip(distance * marking.dash / np.maximum(footprint, 0.05) + 0.5, 0, 1)
    worn = fractal_noise()[(depth * 9).astype(int) % 512, (d * 40).astype(int) % 512]
    cover = (cover * (0.62 + 0.38 * worn))[:, None]
    below = albedo[ys, xs]
    albedo[ys, xs] = below + cover * (np.float32(_PAINT) - below)


def draw_shadows(image: np.ndarray, scene: Scene) -> None:
    """Darken ``image`` (H, W, 3) uint8, on which only sky and ground are painted, where shadows fall."""
    height, width = image.shape[:2]
    light, sun = scene.lighting, np.asarray(scene.lighting.sun)
    darkness = int(255 * 0.9 * light.sun_strength * max(-light.sun[1], 0.0) / light.on_ground)
    mask = np.zeros((height // 2 + 1, width // 2 + 1), np.uint8)
    if darkness > 40:
        for prop in scene.props:
            if prop.kind in ("tree", "bush"):
                _darken(mask, _tree_shadow(scene, prop), scene.calibration, darkness)
    for item in scene.objects:
        _darken(mask, _cast_outline(item, sun), scene.calibration, darkness)
        bottom = item.corners_cam()[:4]
        centre = bottom.mean(axis=0)
        _darken(mask, centre + 1.06 * (bottom - centre), scene.calibration, _CONTACT)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.1)
    keep = cv2.resize(255 - mask, (width, height), interpolation=cv2.INTER_LINEAR)
    top = int(np.argmax(mask.max(axis=1) > 0)) * 2
    image[top:] = cv2.multiply(image[top:], cv2.merge([keep[top:]] * 3), scale=1 / 255)


def _cast_outline(item: Object3d, sun: np.ndarray) -> np.ndarray:
    """Convex outline (n, 3) [m, camera frame] of the shadow on the plane below the object."""
    bottom = item.corners_cam()[:4]
    centre = bottom.mean(axis=0)
    # roofs are narrower than bodies
    top = centre + 0.75 * (bottom - centre)
    length = 0.92 * item.dimensions[0] / max(-float(sun[1]), 0.3)
    top = top - length * np.array([sun[0], 0.0, sun[2]])
    both = np.concatenate([0.94 * (bottom - centre) + centre, top])
    hull = cv2.convexHull(both[:, [0, 2]].astype(np.float32), returnPoints=False)[:, 0]
    return both[hull]


def _tree_shadow(scene: Scene, prop: Prop) -> np.ndarray:
    """An ellipse on the ground where the crown's shadow falls, (16, 3) [m, camera frame]."""
    sun, ground = scene.lighting.sun, scene.ground
    length = 0.6 * prop.size / max(-sun[1], 0.3)
    cos, sin = circle(16).T
    x = prop.x - length * sun[0] + 0.30 * prop.size * cos
    z = prop.z - length * sun[2] + 0.36 * prop.size * sin
    return points(x, ground.height + ground.roll * x + ground.pitch * z, z)


def _darken(mask: np.ndarray, outline_cam: np.ndarray, calibration: Calibration, darkness: int) -> None:
    """Raise the mask, which has half the image's size, to ``darkness`` inside a convex polygon on the ground."""
    outline = clip_near(outline_cam, near=0.8)
    if len(outline) < 3:
        return
    polygon = np.clip(calibration.project(outline) * 0.5 - 0.25, -20000, 20000)
    corners = np.round(polygon * 16).astype(np.int32)
    x, y, width, height = cv2.boundingRect(corners // 16)
    left, top = max(x - 1, 0), max(y - 1, 0)
    right, bottom = min(x + width + 2, mask.shape[1]), min(y + height + 2, mask.shape[0])
    if right <= left or bottom <= top:
        return
    patch = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(patch, corners - np.array([left, top]) * 16, darkness, cv2.LINE_AA, 4)
    view = mask[top:bottom, left:right]
    np.maximum(view, patch, out=view)
