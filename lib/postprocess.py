"""Predictions at peaks -> 3D objects in camera coordinates (metres, radians), as the official decoder does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.ops.affine import window_to_input
from lib.ops.angles import NUM_HEADING_BINS, bin_to_angle
from lib.ops.depth import decode_depth
from lib.ops.feature_map import STRIDE
from lib.structures import FrameInfo, Object3d


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """The part of the configuration that decoding depends on."""

    class_names: Sequence[str]
    """by heatmap channel"""
    resolution: tuple[int, int]
    """network input (width, height) [px]"""
    threshold: float
    """lowest heatmap value"""
    mean_sizes: Mapping[str, tuple[float, float, float]] | None = None
    """(h, w, l) [m] to add to predicted sizes (``meanshape``)"""
    official_vertical: bool = True
    """map rows to picture rows with H / h as the official code does, instead of inverting the input's affine map"""


def decode_detections(
    outputs: Mapping[str, Tensor], frames: Sequence[FrameInfo], settings: DecodeSettings
) -> list[list[Object3d]]:
    """Outputs of ``CenterNet3D.forward`` without indices -> per picture its objects, best heatmap value first.

    Score: heatmap value times exp(-log variance of the depth); the threshold is on the heatmap value alone. A
    detection with a negative size is left out, as in the official decoder. Nothing that is passed in is changed.
    """
    names = ("scores", "classes", "indices", "offset_2d", "size_2d", "depth", "offset_3d", "size_3d", "heading")
    arrays = {name: outputs[name].detach().cpu() for name in names}
    depth = arrays["depth"].float()
    arrays["depth"] = torch.cat([decode_depth(depth[..., :1]), (-depth[..., 1:]).exp()], 2)
    # float64 from here on, as in the official decoder
    values = {k: v.numpy() if k in ("classes", "indices") else v.double().numpy() for k, v in arrays.items()}
    return [
        [
            obj
            for k in np.flatnonzero(values["scores"][b] >= settings.threshold)
            if (obj := _decode_one({name: value[b, k] for name, value in values.items()}, frame, settings)) is not None
        ]
        for b, frame in enumerate(frames)
    ]


def _decode_one(values: Mapping[str, np.ndarray], frame: FrameInfo, settings: DecodeSettings) -> Object3d | None:
    map_width = settings.resolution[0] // STRIDE
    cell = np.array([values["indices"] % map_width, values["indices"] // map_width], dtype=np.float64)
    name = settings.class_names[int(values["classes"])]
    dimensions = values["size_3d"] + (settings.mean_sizes[name] if settings.mean_sizes else 0.0)
    if (dimensions < 0).any():
        return None

    def to_image(point_map: np.ndarray) -> tuple[float, float]:
        return _map_to_image(point_map, frame.image_size, settings)

    center_2d, half = cell + values["offset_2d"], values["size_2d"] / 2
    (x1, y1), (x2, y2) = to_image(center_2d - half), to_image(center_2d + half)
    u, v = to_image(cell + values["offset_3d"])
    depth, confidence = (float(d) for d in values["depth"])
    x, y, z = frame.calibration.back_project(u, v, depth)
    height, width, length = (float(d) for d in dimensions)
    bins, residuals = values["heading"][:NUM_HEADING_BINS], values["heading"][NUM_HEADING_BINS:]
    index = int(bins.argmax())
    alpha = bin_to_angle(index, float(residuals[index]))
    return Object3d(
        type=name,
        truncated=0.0,
        occluded=0,
        alpha=alpha,
        bbox_img=(x1, y1, x2, y2),
        dimensions=(height, width, length),
        location_cam=(x, y + height / 2, z),
        rotation_y=frame.calibration.alpha_to_rotation_y(alpha, u),
        score=float(values["scores"]) * confidence,
    )


def _map_to_image(point_map: np.ndarray, image_size: tuple[int, int], settings: DecodeSettings) -> tuple[float, float]:
    """Cell coordinates (x, y) -> pixel (u, v) of the original picture."""
    width, height = image_size
    if settings.official_vertical:
        map_width, map_height = (side / STRIDE for side in settings.resolution)
        return float(point_map[0] * (width / map_width)), float(point_map[1] * (height / map_height))
    to_input = window_to_input((width / 2, height / 2), width, settings.resolution)
    u, v = (point_map * STRIDE - (to_input.shift_x, to_input.shift_y)) / to_input.scale
    return float(u), float(v)
