"""Predictions at heatmap peaks -> 3D objects in camera coordinates: the only decoder, which ONNX files contain too.

B images, K peaks an image, best first. The formulas are those of MonoDLE's published decoder.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .ops.affine import STRIDE, official_map_fits
from .ops.angles import BIN_SIZE, NUM_HEADING_BINS
from .ops.depth import decode_depth
from .ops.heads import OBJECT_HEADS
from .structures import FrameInfo, Object3d

Tensors = Mapping[str, Tensor]
DECODER_INPUTS = ("scores", "classes", "indices", *OBJECT_HEADS)  # outputs of the network that decoding needs


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """The part of the configuration that decoding depends on."""

    class_names: Sequence[str]  # by heatmap channel
    resolution: tuple[int, int]  # network input (width, height) [px]
    threshold: float  # lowest heatmap value of a detection
    mean_sizes: Mapping[str, Sequence[float]] | None = None  # (h, w, l) [m] to add to predicted sizes (``meanshape``)
    map_to_image: str = "auto"
    """rows of the map to rows of the image. 'official': by the ratio of the heights, as the published code does;
    'exact': by the inverse of the map from the image to the network input; 'auto': the first for images whose ratio
    width / height is the input's (``official_map_fits``), for others the second"""


def decode_detections(outputs: Tensors, frames: Sequence[FrameInfo], settings: DecodeSettings) -> list[list[Object3d]]:
    """Outputs of ``CenterNet3D.forward`` without indices -> the objects of each frame, best heatmap value first.

    The threshold applies to the heatmap value, not to the score. Detections with a negative size are left out, as in
    the published decoder. Nothing that is passed in is changed.
    """
    at_peaks = {name: outputs[name].detach().cpu() for name in DECODER_INPUTS}
    # float64, as in the published decoder
    P2 = torch.from_numpy(np.array([frame.calibration.P2 for frame in frames], np.float64).reshape(-1, 3, 4))
    image_size = torch.tensor([frame.image_size for frame in frames], dtype=P2.dtype).reshape(-1, 2)
    depth_scale = torch.tensor([frame.depth_scale for frame in frames], dtype=P2.dtype)
    values = decode(at_peaks, P2, image_size, settings, depth_scale)
    kept = (values["heatmap"] >= settings.threshold) & (values["dimensions"] >= 0).all(dim=2)
    columns = {name: value.tolist() for name, value in values.items()}
    return [
        [_to_object({name: column[b][k] for name, column in columns.items()}, settings) for k in slots]
        for b, slots in enumerate(row.nonzero()[:, 0].tolist() for row in kept)
    ]


def decode(
    outputs: Tensors, P2: Tensor, image_size: Tensor, settings: DecodeSettings, depth_scale: Tensor | None = None
) -> dict[str, Tensor]:
    """Every peak decoded, without threshold; in operators that ONNX has, and in the precision of ``P2``.

    Args:
        outputs: the entries :data:`DECODER_INPUTS` of ``CenterNet3D.forward`` without indices.
        P2: (B, 3, 4), projection matrix of the original image.
        image_size: (B, 2), (width, height) of the original image [px].
        depth_scale: (B,), factor on decoded depths; None: 1.

    Returns:
        score (B, K), the heatmap value times exp(-log variance of the depth); heatmap (B, K); class_index (B, K) int64;
        bbox (B, K, 4), (x1, y1, x2, y2) [px of the original image]; dimensions (B, K, 3), (h, w, l) [m];
        location (B, K, 3), centre of the bottom face [m, rectified camera]; rotation_y and alpha (B, K) [rad];
        cell (B, K) int64, y * map width + x.
    """
    dtype, indices, classes = P2.dtype, outputs["indices"], outputs["classes"]
    read = ("offset_2d", "size_2d", "offset_3d", "size_3d")
    offset_2d, size_2d, offset_3d, dimensions = (outputs[name].to(dtype) for name in read)
    map_width = settings.resolution[0] // STRIDE
    cells = torch.stack([indices % map_width, indices // map_width], dim=2).to(dtype)
    center_2d, half = cells + offset_2d, size_2d / 2
    corners_img = [_map_to_image(corner, image_size, settings) for corner in (center_2d - half, center_2d + half)]
    u_img, v_img = _map_to_image(cells + offset_3d, image_size, settings).unbind(2)
    # float32 as in the network: a detection must not depend on the precision of P2
    raw_depth, log_variance = outputs["depth"].float().unbind(2)
    depth = decode_depth(raw_depth).to(dtype)
    if depth_scale is not None:
        depth = depth * depth_scale[:, None]
    if settings.mean_sizes:
        means = [list(settings.mean_sizes[name]) for name in settings.class_names]
        dimensions = dimensions + torch.tensor(means, dtype=dtype)[classes]
    # the formula of Calibration.back_project
    (fu, _, cu, shift_u), (_, fv, cv, shift_v) = (P2[:, row, :, None].unbind(1) for row in (0, 1))
    x, y = (u_img - cu) * depth / fu - shift_u / fu, (v_img - cv) * depth / fv - shift_v / fv
    alpha = _decode_heading(outputs["heading"].to(dtype))
    scores = outputs["scores"].to(dtype)
    return {
        "score": scores * (-log_variance).exp().to(dtype),
        "heatmap": scores,
        "class_index": classes,
        "bbox": torch.cat(corners_img, dim=2),
        "dimensions": dimensions,
        "location": torch.stack([x, y + dimensions[..., 0] / 2, depth], dim=2),
        # Calibration.alpha_to_rotation_y; ONNX has no atan2, and fu is positive
        "rotation_y": _wrap_angle(alpha + ((u_img - cu) / fu).atan()),
        "alpha": alpha,
        "cell": indices,
    }


def _to_object(values: Mapping[str, Any], settings: DecodeSettings) -> Object3d:
    return Object3d(
        type=settings.class_names[values["class_index"]],
        truncated=0.0,
        occluded=0,
        alpha=values["alpha"],
        bbox_img=tuple(values["bbox"]),
        dimensions=tuple(values["dimensions"]),
        location_cam=tuple(values["location"]),
        rotation_y=values["rotation_y"],
        score=values["score"],
    )


def _map_to_image(points_map: Tensor, image_size: Tensor, settings: DecodeSettings) -> Tensor:
    """Cells (B, K, 2) -> pixels (B, K, 2) of the original image."""
    resolution = torch.tensor(settings.resolution, dtype=image_size.dtype)
    official = points_map * (image_size / (resolution / STRIDE))[:, None]
    if settings.map_to_image == "official":
        return official
    # the inverse of lib.ops.affine.window_to_input for the whole image
    scale = resolution[0] / image_size[:, :1]
    shift = (resolution - scale * image_size) / 2
    exact = (points_map * STRIDE - shift[:, None]) / scale[:, None]
    if settings.map_to_image == "exact":
        return exact
    fits = official_map_fits(image_size[:, 0], image_size[:, 1], resolution)
    return torch.where(fits[:, None, None], official, exact)


def _decode_heading(heading: Tensor) -> Tensor:
    """(B, K, 24), 12 bin logits and 12 residuals -> angles (B, K) [rad], the inverse of ``angle_to_bin``."""
    bins = heading[..., :NUM_HEADING_BINS].argmax(dim=2, keepdim=True)
    angle = bins.to(heading.dtype) * BIN_SIZE + heading[..., NUM_HEADING_BINS:].gather(2, bins)
    return torch.where(angle > math.pi, angle - 2 * math.pi, angle).squeeze(2)


def _wrap_angle(angle: Tensor) -> Tensor:
    """As ``lib.ops.angles.wrap_angle``."""
    return torch.where(angle.abs() <= math.pi, angle, torch.remainder(angle + math.pi, 2 * math.pi) - math.pi)
