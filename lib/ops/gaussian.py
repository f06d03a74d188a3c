"""CenterNet's Gaussian peaks on a heatmap."""

import math

import numpy as np


def gaussian_radius(width: float, height: float, min_overlap: float = 0.7) -> float:
    """CornerNet's radius: how far a box's corners may move while it overlaps the original by ``min_overlap``.

    In the unit of ``width`` and ``height``. The smallest of three cases. The roots are those of CornerNet's (and
    CenterNet's) published code, which differ from its derivation: official targets and trained networks depend on them.
    """
    total, area = width + height, width * height

    def root(a: float, b: float, c: float) -> float:
        return (b + math.sqrt(b * b - 4 * a * c)) / 2

    return min(
        root(1, total, area * (1 - min_overlap) / (1 + min_overlap)),
        root(4, 2 * total, (1 - min_overlap) * area),
        root(4 * min_overlap, -2 * min_overlap * total, (min_overlap - 1) * area),
    )


def draw_gaussian(heatmap: np.ndarray, center: tuple[int, int], radius: int) -> None:
    """Draw a Gaussian of sigma (2 radius + 1) / 6 around cell ``center`` (x, y) into ``heatmap`` (H, W), in place.

    Each cell keeps the larger of its old and its new value. The part outside the map is left out.
    """
    x, y = center
    height, width = heatmap.shape
    left, right = min(x, radius), min(width - x, radius + 1)
    top, bottom = min(y, radius), min(height - y, radius + 1)
    sigma = (2 * radius + 1) / 6
    across = np.arange(-left, right, dtype=np.float64)
    down = np.arange(-top, bottom, dtype=np.float64)
    peak = np.exp(-(across[None, :] ** 2 + down[:, None] ** 2) / (2 * sigma * sigma))
    peak[peak < np.finfo(np.float64).eps] = 0
    patch = heatmap[y - top : y + bottom, x - left : x + right]
    np.maximum(patch, peak, out=patch, casting="same_kind")
