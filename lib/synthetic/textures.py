"""Ground textures, noise and tree sprites: made once per process, from fixed seeds and images of scikit-image."""

from functools import lru_cache

import cv2
import numpy as np
import skimage.data

LEVELS = 8
REFERENCE_FOCAL_PX = 721.5  # for detail that scales with the focal length: about that of KITTI's camera


def mip_levels(image: np.ndarray, count: int = LEVELS, smallest: int = 1) -> tuple[np.ndarray, ...]:
    """The image, halved again and again: at most ``count`` levels, the last with a side of ``smallest`` or less."""
    levels = [image]
    while len(levels) < count and min(levels[-1].shape[:2]) > smallest:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(levels)


def mip_level(shrinking: float | np.ndarray, count: int, offset: float = 0.5) -> np.ndarray:
    """Index of the level of ``count`` for a texture drawn ``shrinking`` times smaller; ``offset`` 0 rounds down."""
    return np.clip(np.floor(np.log2(np.maximum(shrinking, 1.0)) + offset), 0, count - 1).astype(int)


@lru_cache(maxsize=1)
def detail_pyramids() -> dict[str, tuple[np.ndarray, ...]]:
    """Tileable detail ('asphalt', 'grass', 'brick') as mip levels: (512 / 2^k, 512 / 2^k) float32, mean 1.

    The images are part of the scikit-image package.
    """
    pyramids = {}
    for name, image, spread in (
        ("asphalt", skimage.data.gravel(), 0.085),
        ("grass", skimage.data.grass(), 0.30),
        ("brick", skimage.data.brick(), 0.16),
    ):
        grey = image.astype(np.float32)
        # without large-scale shading
        detail = grey - cv2.GaussianBlur(grey, (0, 0), 48, borderType=cv2.BORDER_REFLECT)
        detail = 1.0 + spread * (detail - detail.mean()) / max(float(detail.std()), 1e-6)
        pyramids[name] = mip_levels(detail)
    return pyramids


@lru_cache(maxsize=1)
def fractal_noise() -> np.ndarray:
    """Periodic cloud-like noise, (512, 512) float32 in 0..1."""
    rng, size = np.random.default_rng(20171), 512
    total = np.zeros((size, size), np.float32)
    cells, weight = 4, 1.0
    while cells <= 128:
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        # two cells of wrap on each side, cut off again, keep the tile periodic
        padded = np.pad(grid, 2, mode="wrap")
        step = size // cells
        big = cv2.resize(padded, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += weight * big[2 * step : 2 * step + size, 2 * step : 2 * step + size]
        cells, weight = cells * 2, weight * 0.55
    low, high = np.quantile(total, (0.01, 0.99))
    return np.clip((total - low) / (high - low), 0, 1).astype(np.float32)


@lru_cache(maxsize=1)
def sensor_noise() -> np.ndarray:
    """Unit Gaussian noise with a slight correlation between neighbours, (1024, 1536, 3) float32."""
    rng = np.random.default_rng(20172)
    noise = cv2.GaussianBlur(rng.standard_normal((1024, 1536, 3)).astype(np.float32), (0, 0), 0.5)
    return noise / noise.std()


@lru_cache(maxsize=1)
def tree_sprites() -> tuple[tuple[np.ndarray, ...], ...]:
    """Seven trees, then two bushes, as mip levels of premultiplied BGRA images (512 / 2^k, 384 / 2^k, 4) uint8.

    The foot of the trunk is in the middle of the last row.
    """
    rng = np.random.default_rng(20173)
    return tuple(mip_levels(_paint_tree(rng, trunk), 99, 16) for trunk in (*[True] * 7, *[False] * 2))


def _paint_tree(rng: np.random.Generator, trunk: bool) -> np.ndarray:
    """One sprite: groups of leaves around the middle of the crown, dark below."""
    height, width = 512, 384
    sprite = np.zeros((height, width, 4), np.uint8)
    bark = np.array([38, 46, 55]) * rng.uniform(0.8, 1.3)
    leaf = np.array([rng.uniform(22, 45), rng.uniform(75, 110), rng.uniform(50, 95)])
    if trunk:
        _paint_trunk(sprite, rng, bark)
    row, spread_x, spread_y, groups = (0.36, 0.25, 0.19, 80) if trunk else (0.66, 0.27, 0.17, 64)
    middle, spread = np.array([width / 2, height * row]), np.array([width * spread_x, height * spread_y])
    centres = middle + rng.standard_normal((groups, 2)) * spread * 0.62
    centres = centres[np.sum(((centres - middle) / (spread * 1.55)) ** 2, axis=1) < 1]
    for x, y in centres[np.argsort(-centres[:, 1])]:
        light = 0.55 + 0.55 * np.clip((middle[1] + spread[1] - y) / (2.4 * spread[1]), 0, 1)
        for _ in range(26):
            dx, dy = rng.standard_normal(2) * 20
            shade = light * rng.uniform(0.55, 1.25) * (1.12 if dy < 0 else 0.85)
            radius = int(rng.integers(4, 8))
            axes = (2 * radius, 2 * max(2, int(radius * rng.uniform(0.5, 0.9))))
            spot = (int(np.clip(x + dx, 8, width - 9)), int(np.clip(y + dy, 8, height - 3)))
            cv2.ellipse(sprite, (spot, axes, float(rng.uniform(0, 180))), (*(leaf * shade), 255.0), -1)
    return sprite


def _paint_trunk(sprite: np.ndarray, rng: np.random.Generator, bark: np.ndarray) -> None:
    height, width = sprite.shape[:2]
    foot, fork = np.array([width / 2, height - 1.0]), np.array([width / 2 + rng.uniform(-10, 10), height * 0.52])
    half = rng.uniform(7, 11)
    # across the foot, then back across the fork; the right-hand part is lit
    for left, shade in ((-1.0, 1.0), (0.2, 1.5)):
        across = np.array([[left * half, 0], [half, 0], [0.6 * half, 0], [0.6 * left * half, 0]])
        outline = np.stack([foot, foot, fork, fork]) + across
        cv2.fillConvexPoly(sprite, outline.astype(np.int32), (*(bark * shade).tolist(), 255.0))
    for _ in range(6):
        end = fork + np.array([rng.uniform(-110, 110), rng.uniform(-170, -50)])
        cv2.line(sprite, fork.astype(int).tolist(), end.astype(int).tolist(), (*bark, 255.0), int(rng.integers(3, 7)))
