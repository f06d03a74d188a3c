"""The detector from image to 3D boxes as one graph, for runtimes without PyTorch.

The same arithmetic as ``lib/postprocess.py``, in float32 and in operators that ONNX has. B images, K object slots an
image, H x W the network input.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import Config, dump_config
from ..models.centernet3d import CenterNet3D
from ..models.folding import fold_batch_norm
from ..ops.angles import BIN_SIZE, NUM_HEADING_BINS
from ..ops.depth import decode_depth
from ..ops.feature_map import STRIDE

INPUTS = ("images", "P2", "image_size")
OUTPUTS = ("score", "heatmap", "class_index", "bbox", "dimensions", "location", "rotation_y", "alpha", "cell")
FORMAT = "ddml-monodle detector, 1"
"""in the metadata: by this a runner knows the files that it can run"""
OLDEST_OPSET = 18
"""that PyTorch's exporter writes"""


class ExportableDetector(nn.Module):
    """Images as they come from a file reader, calibrations and sizes -> the final values of every object slot."""

    means: Tensor
    resolution: Tensor

    def __init__(self, model: CenterNet3D, config: Config) -> None:
        """``model`` is copied; BatchNorm is folded into the copy's convolutions."""
        super().__init__()
        self.model = fold_batch_norm(model)
        self.topk = config.tester.topk
        self.official_vertical = config.tester.map_to_image == "official"
        self.map_width = config.dataset.resolution[0] // STRIDE
        sizes, names = config.dataset.known_sizes, config.dataset.class_names
        means = [sizes[name] if config.dataset.meanshape else (0.0, 0.0, 0.0) for name in names]
        self.register_buffer("means", torch.tensor(means, dtype=torch.float32), persistent=False)
        resolution = torch.tensor(config.dataset.resolution, dtype=torch.float32)
        self.register_buffer("resolution", resolution, persistent=False)

    def forward(self, images: Tensor, P2: Tensor, image_size: Tensor) -> tuple[Tensor, ...]:
        """From images to objects, best heatmap value first. No threshold is applied, and no negative size left out.

        Args:
            images: (B, H, W, 3) uint8 RGB, at network resolution: rows as OpenCV has them.
            P2: (B, 3, 4) float32, projection matrix of the original image.
            image_size: (B, 2) float32, (width, height) of the original image [px].

        Returns:
            in the order of :data:`OUTPUTS`: score (B, K), the heatmap's value times exp(-log variance of the depth);
            heatmap (B, K), the value that a threshold is for; class_index (B, K) int64;
            bbox (B, K, 4), (x1, y1, x2, y2) [px of the original image]; dimensions (B, K, 3), (h, w, l) [m];
            location (B, K, 3), centre of the bottom face [m, camera]; rotation_y and alpha (B, K) [rad];
            cell (B, K) int64, y * (W / 4) + x on the heatmap.
        """
        values = self.decode(self.model(images.permute(0, 3, 1, 2), topk=self.topk), P2, image_size)
        return tuple(values[name] for name in OUTPUTS)

    def decode(self, outputs: Mapping[str, Tensor], P2: Tensor, image_size: Tensor) -> dict[str, Tensor]:
        """What :meth:`forward` returns, by name, from the outputs of ``CenterNet3D.forward``."""
        classes, indices = outputs["classes"], outputs["indices"]
        cells = torch.stack([indices % self.map_width, indices // self.map_width], dim=2).to(P2.dtype)
        center_2d, half = cells + outputs["offset_2d"], outputs["size_2d"] / 2
        corners = [self._map_to_image(corner, image_size) for corner in (center_2d - half, center_2d + half)]
        u, v = self._map_to_image(cells + outputs["offset_3d"], image_size).unbind(2)
        depth = decode_depth(outputs["depth"][..., 0])
        dimensions = outputs["size_3d"] + self.means[classes]
        # Calibration.back_project
        (fu, _, cu, shift_u), (_, fv, cv, shift_v) = (P2[:, row, :, None].unbind(1) for row in (0, 1))
        x, y = (u - cu) * depth / fu - shift_u / fu, (v - cv) * depth / fv - shift_v / fv
        alpha = _decode_heading(outputs["heading"])
        return {
            "score": outputs["scores"] * (-outputs["depth"][..., 1]).exp(),
            "heatmap": outputs["scores"],
            "class_index": classes,
            "bbox": torch.cat(corners, dim=2),
            "dimensions": dimensions,
            "location": torch.stack([x, y + dimensions[..., 0] / 2, depth], dim=2),
            # ONNX has no atan2; fu is positive
            "rotation_y": _wrap_angle(alpha + ((u - cu) / fu).atan()),
            "alpha": alpha,
            "cell": indices,
        }

    def _map_to_image(self, points_map: Tensor, image_size: Tensor) -> Tensor:
        """Cell coordinates (B, K, 2) -> pixels (B, K, 2) of the original image."""
        if self.official_vertical:
            return points_map * (image_size / (self.resolution / STRIDE))[:, None]
        scale = self.resolution[0] / image_size[:, :1]
        shift = (self.resolution - scale * image_size) / 2  # the image's centre is the input's
        return (points_map * STRIDE - shift[:, None]) / scale[:, None]


def _decode_heading(heading: Tensor) -> Tensor:
    """(B, K, 24) bin logits and residuals -> angles (B, K) [rad], as ``bin_to_angle``."""
    bins = heading[..., :NUM_HEADING_BINS].argmax(dim=2, keepdim=True)
    angle = bins * BIN_SIZE + heading[..., NUM_HEADING_BINS:].gather(2, bins)
    return torch.where(angle > math.pi, angle - 2 * math.pi, angle).squeeze(2)


def _wrap_angle(angle: Tensor) -> Tensor:
    """As ``lib.ops.angles.wrap_angle``."""
    turned = angle - 2 * math.pi * ((angle + math.pi) / (2 * math.pi)).floor()
    return torch.where(angle.abs() <= math.pi, angle, turned)


def describe(config: Config) -> dict[str, str]:
    """What a runner has to know beside the graph: names to JSON values, for the file's metadata."""
    plain = dump_config(config)
    keys = {
        "dataset": ("class_names", "resolution", "meanshape"),
        "model": ("backbone",),
        "tester": ("threshold", "topk", "map_to_image"),
    }
    values = {key: plain[section][key] for section, names in keys.items() for key in names}
    return {name: json.dumps(value) for name, value in ({"format": FORMAT} | values).items()}


def to_onnx(detector: ExportableDetector, opset: int, metadata: Mapping[str, str]) -> bytes:
    """The content of an ONNX file whose batch size is free.

    Needs the packages onnx and onnxscript, and PyTorch >= 2.6. Raises ValueError where this PyTorch cannot export.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise ValueError(f"exporting needs PyTorch >= 2.6, this is {torch.__version__}")
    width, height = (int(side) for side in detector.resolution)
    # two images, not one: with one the exporter takes the batch size for a constant
    example = (torch.zeros(2, height, width, 3, dtype=torch.uint8), torch.ones(2, 3, 4), torch.ones(2, 2))
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own deprecated parts
            program = torch.onnx.export(
                detector.eval(),
                example,
                dynamo=True,
                opset_version=opset,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes={name: {0: batch} for name in INPUTS},
                optimize=True,
                verbose=False,
            )
            assert program is not None, "the new exporter returns a program"
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"this PyTorch ({torch.__version__}) cannot export the model: {error}") from error
    model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]  # the exporter's notes, with stack traces and paths of this machine
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    return model.SerializeToString()
