"""Reading feature maps at cells, and finding the peaks of heatmaps.

B images, C channels, H x W cells of the map, K cells read per image. The index of a cell is ``y * W + x``.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .affine import STRIDE, ScaleShift


def cells_to_image(to_input: ScaleShift) -> np.ndarray:
    """(2, 3) affine matrix, cells of the map (continuous, 0 at the corner of the first) -> pixels of the image.

    ``to_input`` maps that image to the network input.
    """
    scale, x, y = to_input.scale, to_input.shift_x, to_input.shift_y
    return np.array([[STRIDE / scale, 0, -x / scale], [0, STRIDE / scale, -y / scale]])


class Peaks(NamedTuple):
    """The best cells of a heatmap, best first; all (B, K)."""

    scores: Tensor  # heatmap values after the sigmoid, 0..1
    classes: Tensor  # int64
    indices: Tensor  # int64, y * W + x


def find_peaks(heatmap: Tensor, topk: int) -> Peaks:
    """The ``topk`` highest local maxima over all classes of ``heatmap`` (B, C, H, W), logits.

    A cell counts if it equals the maximum of its 3x3 neighbourhood (CenterNet's non-maximum suppression).
    """
    scores = heatmap.float().sigmoid()
    scores = torch.where(F.max_pool2d(scores, 3, stride=1, padding=1) == scores, scores, 0.0)
    batch, _, height, width = scores.shape
    best, flat = scores.reshape(batch, -1).topk(min(topk, scores[0].numel()), dim=1)
    area = height * width
    return Peaks(best, flat // area, flat % area)


def gather_cells(feature_map: Tensor, indices: Tensor) -> Tensor:
    """Values of (B, C, H, W) at the cells (B, K) -> (B, K, C)."""
    flat = feature_map.flatten(2)
    return flat.gather(2, indices[:, None, :].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def gather_windows(feature_map: Tensor, indices: Tensor, size: int) -> Tensor:
    """The ``size`` x ``size`` neighbourhood of each cell, zero outside the map.

    (B, C, H, W), (B, K) -> (B, K, C, size * size), row by row as in the weight of a Conv2d.
    """
    batch, channels, height, width = feature_map.shape
    reach = torch.arange(size, device=indices.device) - size // 2
    y = (indices // width)[..., None, None] + reach[:, None]
    x = (indices % width)[..., None, None] + reach
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    cells = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1)
    windows = gather_cells(feature_map, cells).reshape(batch, indices.shape[1], size * size, channels)
    return (windows * inside.flatten(2)[..., None]).transpose(2, 3)
