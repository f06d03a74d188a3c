"""The ground plane in true perspective: every pixel below the horizon is a ray that meets the plane.

Colours come from the road's cross-section (a texture over the lateral coordinate), detail from tiled textures; both are
read from mip levels, so that nothing flickers or aliases far away.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ..structures import Calibration
from .scene import Ground, Marking, Road, Scene
from .textures import LEVELS, detail_pyramids, fractal_noise

FAR_M = 300.0
_USUAL_FOCAL_PX = 721.5
_PAINT = 209  # albedo of road paint, 0..255
_TEXEL_M = 0.02
_HALF_WIDTH_M = 60.0
_TILE_M = {"asphalt": 1.7, "grass": 1.8, "brick": 2.2}
_MATERIALS = ("asphalt", "grass", "brick")


def ground_rays(
    size: tuple[int, int], calibration: Calibration, ground: Ground
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """First ground row, and x, z [m] and validity of the plane's points seen in the rows from there, (H', W)."""
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


def draw_ground(canvas: np.ndarray, scene: Scene) -> None:
    """Paint the ground over ``canvas`` (H, W, 3) uint8, without shadows."""
    first, x, z, valid = ground_rays(scene.size, scene.calibration, scene.ground)
    if len(z) == 0:
        return
    lateral = scene.road.lateral_at(x, z).astype(np.float32)
    albedo = _surface(scene, lateral, z)
    for marking in scene.road.markings:
        _paint_marking(albedo, lateral, z, marking, scene)
    light = scene.lighting
    colour = cv2.convertScaleAbs(albedo, alpha=light.ambient + light.sun_strength * max(-light.sun[1], 0.0))
    # only the rows at the horizon can hold invalid rays
    whole = valid.all(axis=1)
    rows = int(np.argmax(whole)) if whole.any() else len(valid)
    canvas[first + rows :] = colour[rows:]
    canvas[first : first + rows][valid[:rows]] = colour[:rows][valid[:rows]]


def _surface(scene: Scene, lateral: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Albedo (H', W, 3) uint8 of the ground: cross-section times detail, row band by row band."""
    sections = _cross_section(scene.road)
    rng = np.random.default_rng((*scene.seed, 1))
    offset = np.float32(rng.uniform(0, 500))
    out = np.empty((*z.shape, 3), np.uint8)
    depth = z[:, z.shape[1] // 2]
    # rows on the ground are longer than columns are wide: between the two, at 721 px focal length, lies z / 5 m
    footprint = depth * (_USUAL_FOCAL_PX / scene.calibration.fu) / 5.0
    detail_level = np.clip(np.floor(np.log2(np.maximum(footprint, 1.0)) + 0.5), 0, LEVELS - 1).astype(int)
    for level in np.unique(detail_level):
        rows = np.flatnonzero(detail_level == level)
        band = slice(int(rows[0]), int(rows[-1]) + 1)
        d, along = lateral[band], z[band] + offset
        pixel_m = float(np.median(depth[band])) / scene.calibration.fu
        mip = int(np.clip(np.round(np.log2(max(pixel_m / _TEXEL_M, 1.0))), 0, len(sections) - 1))
        colours, shares = sections[mip]
        column = ((d + np.float32(_HALF_WIDTH_M)) * np.float32(1 / (_TEXEL_M * 2**mip))).astype(np.int32)
        np.clip(column, 0, len(colours) - 1, out=column)
        share = np.take(shares, column, axis=0)
        # wear and repairs: large soft patches
        detail = 0.89 + 0.22 * _tile("wear", 0, d, along * np.float32(0.45), 24.0)
        for channel, material in enumerate(_MATERIALS):
            if any(strip.material == material for strip in scene.road.strips):
                texture = _tile(material, level, d, along, _TILE_M[material])
                detail *= 1.0 + share[..., channel] * np.float32(1 / 255) * (texture - 1.0)
        scaled = cv2.convertScaleAbs(detail, alpha=128)
        out[band] = cv2.multiply(np.take(colours, column, axis=0), cv2.merge([scaled] * 3), scale=1 / 128)
    return out


@lru_cache(maxsize=64)
def _padded(material: str, level: int) -> np.ndarray:
    """A periodic texture with one more row and column: quicker than OpenCV's BORDER_WRAP by a factor of three."""
    texture = fractal_noise() if material == "wear" else detail_pyramids()[material][level]
    return np.pad(texture, ((0, 1), (0, 1)), mode="wrap")


def _tile(material: str, level: int, d: np.ndarray, along: np.ndarray, tile_m: float) -> np.ndarray:
    """A periodic texture looked up at lateral ``d`` and ``along`` [m], float32."""
    texture = _padded(material, level)
    size = np.float32(texture.shape[0] - 1)
    maps = []
    for metres in (d, along):
        tiles = metres * np.float32(1 / tile_m)
        maps.append((tiles - np.floor(tiles)) * size)
    return cv2.remap(texture, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _cross_section(road: Road) -> list[tuple[np.ndarray, np.ndarray]]:
    """Colours and shares of the materials over the lateral coordinate, (n, 3) uint8 each, as mip levels."""
    count = int(2 * _HALF_WIDTH_M / _TEXEL_M)
    colours, shares = np.zeros((1, count, 3), np.uint8), np.zeros((1, count, 3), np.uint8)
    start = 0
    for strip in road.strips:
        end = int(np.clip((strip.end + _HALF_WIDTH_M) / _TEXEL_M, 0, count))
        colours[0, start:end] = np.clip(np.asarray(strip.colour) * 255, 0, 255)
        shares[0, start:end, _MATERIALS.index(strip.material)] = 255
        start = max(start, end)
    levels = [(colours, shares)]
    for _ in range(5):
        halved = (cv2.resize(a, None, fx=0.5, fy=1.0, interpolation=cv2.INTER_AREA) for a in levels[-1])
        levels.append(tuple(halved))  # type: ignore[arg-type]
    return [(colour[0], share[0]) for colour, share in levels]


def _paint_marking(albedo: np.ndarray, lateral: np.ndarray, z: np.ndarray, marking: Marking, scene: Scene) -> None:
    """A painted line with analytic antialiasing, only where it can be seen."""
    pixel_m = z * np.float32(1.0 / scene.calibration.fu)
    reach = 0.5 * marking.width
    near = np.abs(lateral - marking.lateral) < reach + pixel_m
    ys, xs = np.nonzero(near)
    if len(ys) == 0:
        return
    d, depth, pixel = lateral[ys, xs], z[ys, xs], pixel_m[ys, xs]
    cover = np.clip((reach - np.abs(d - marking.lateral)) / pixel + 0.5, 0, 1) * np.minimum(1, 2 * reach / pixel)
    if marking.dash > 0:
        # the step between dash and gap is as soft as a row of pixels is long on the ground
        footprint = depth * depth / (scene.calibration.fv * scene.ground.height)
        phase = (depth + scene.seed[-1] % 7) / marking.dash
        distance = np.abs((phase % 2) - 1) - 0.5
        cover *= np.clip(distance * marking.dash / np.maximum(footprint, 0.05) + 0.5, 0, 1)
    worn = fractal_noise()[(depth * 9).astype(int) % 512, (d * 40).astype(int) % 512]
    cover = (cover * (0.62 + 0.38 * worn))[:, None]
    below = albedo[ys, xs]
    albedo[ys, xs] = below + cover * (np.float32(_PAINT) - below)
