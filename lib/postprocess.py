"""Predictions at peaks -> 3D objects in camera coordinates (metres, radians), as the official decoder does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .ops.affine import window_to_input
from .ops.angles import NUM_HEADING_BINS, bin_to_angle
from .ops.depth import decode_depth
from .ops.feature_map import STRIDE
from .structures import FrameInfo, Object3d

DECODED = ("scores", "classes", "indices", "offset_2d", "size_2d", "depth", "offset_3d", "size_3d", "heading")
"""the network's outputs that decoding needs"""


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """The part of the configuration that decoding depends on."""

    class_names: Sequence[str]
    """by heatmap channel"""
    resolution: tuple[int, int]
    """network input (width, height) [px]"""
    threshold: float
    """lowest heatmap value"""
    mean_sizes: Mapping[str, Sequence[float]] | None = None
    """(h, w, l) [m] to add to predicted sizes (``meanshape``)"""
    official_vertical: bool = True
    """map rows to image rows with H / h as the official code does, instead of inverting the input's affine map"""


def decode_detections(
    outputs: Mapping[str, Tensor], frames: Sequence[FrameInfo], settings: DecodeSettings
) -> list[list[Object3d]]:
    """Outputs of ``CenterNet3D.forward`` without indices -> per image its objects, best heatmap value first.

    Score: heatmap value times exp(-log variance of the depth); the threshold is on the heatmap value alone. A
    detection with a negative size is left out, as in the official decoder. Nothing that is passed in is changed.
    """
    arrays = {name: outputs[name].detach().cpu() for name in DECODED}
    depth = arrays["depth"].float()
    arrays["depth"] = torch.cat([decode_depth(depth[..., :1]), (-depth[..., 1:]).exp()], 2)
    # float64 from here on, as in the official decoder
    values = {k: v.numpy() if k in ("classes", "indices") else v.double().numpy() for k, v in arrays.items()}
    return [
        _decode_frame({name: value[b] for name, value in values.items()}, frame, settings)
        for b, frame in enumerate(frames)
    ]


def _decode_frame(values: Mapping[str, np.ndarray], frame: FrameInfo, settings: DecodeSettings) -> list[Object3d]:
    """``values``: by name (K, ..). All cells at once: one by one would cost as much time as the network on a GPU."""
    dimensions = values["size_3d"]
    if settings.mean_sizes:
        means = np.array([settings.mean_sizes[name] for name in settings.class_names])
        dimensions = dimensions + means[values["classes"]]
    kept = np.flatnonzero((values["scores"] >= settings.threshold) & (dimensions >= 0).all(axis=1))
    values = {name: value[kept] for name, value in values.items()}
    dimensions = dimensions[kept]
    map_width = settings.resolution[0] // STRIDE
    cells = np.stack([values["indices"] % map_width, values["indices"] // map_width], axis=1).astype(np.float64)
    center_2d, half = cells + values["offset_2d"], values["size_2d"] / 2
    boxes = [_map_to_image(corner, frame.image_size, settings) for corner in (center_2d - half, center_2d + half)]
    u, v = _map_to_image(cells + values["offset_3d"], frame.image_size, settings).T
    depth, confidence = values["depth"].T
    x, y, z = frame.calibration.back_project(u, v, depth * frame.depth_scale)
    bins = values["heading"][:, :NUM_HEADING_BINS].argmax(axis=1)
    residuals = values["heading"][np.arange(len(bins)), NUM_HEADING_BINS + bins]
    alphas = [bin_to_angle(index, residual) for index, residual in zip(bins.tolist(), residuals.tolist(), strict=True)]
    rows = zip(
        values["classes"].tolist(),
        alphas,
        np.concatenate(boxes, axis=1).tolist(),
        dimensions.tolist(),
        np.stack([x, y + dimensions[:, 0] / 2, z], axis=1).tolist(),
        u.tolist(),
        (values["scores"] * confidence).tolist(),
        strict=True,
    )
    return [
        Object3d(
            type=settings.class_names[index],
            truncated=0.0,
            occluded=0,
            alpha=alpha,
            bbox_img=(box[0], box[1], box[2], box[3]),
            dimensions=(size[0], size[1], size[2]),
            location_cam=(location[0], location[1], location[2]),
            rotation_y=frame.calibration.alpha_to_rotation_y(alpha, column),
            score=score,
        )
        for index, alpha, box, size, location, column, score in rows
    ]


def _map_to_image(points_map: np.ndarray, image_size: tuple[int, int], settings: DecodeSettings) -> np.ndarray:
    """Cell coordinates (N, 2) -> pixels (N, 2) of the original image."""
    width, height = image_size
    if settings.official_vertical:
        map_width, map_height = (side / STRIDE for side in settings.resolution)
        return points_map * (width / map_width, height / map_height)
    to_input = window_to_input((width / 2, height / 2), width, settings.resolution)
    return (points_map * STRIDE - (to_input.shift_x, to_input.shift_y)) / to_input.scale
