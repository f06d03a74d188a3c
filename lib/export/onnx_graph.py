"""The detector from image to 3D boxes as one ONNX graph, for runtimes without PyTorch.

B images, K object slots an image, H x W the network input.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config
from ..engine.inference import decode_settings
from ..models.folding import fold_batch_norm
from ..postprocess import decode

INPUTS = ("images", "P2", "image_size")
OUTPUTS = ("score", "heatmap", "class_index", "bbox", "dimensions", "location", "rotation_y", "alpha", "cell")
FORMAT = "ddml-monodle detector, 1"  # in the metadata; a runner refuses files without it
OLDEST_OPSET = 18  # that PyTorch's exporter writes


class ExportableDetector(nn.Module):
    """uint8 images, projection matrices and image sizes -> the final values of every object slot."""

    def __init__(self, model: nn.Module, config: Config) -> None:
        """``model`` is copied; BatchNorm is folded into the copy's convolutions."""
        super().__init__()
        self.model = fold_batch_norm(model)
        self.topk, self.settings = config.tester.topk, decode_settings(config)

    def forward(self, images: Tensor, P2: Tensor, image_size: Tensor) -> tuple[Tensor, ...]:
        """Every slot decoded, best heatmap value first; no threshold is applied, and negative sizes are kept.

        ``images``: (B, H, W, 3) uint8 RGB, at network resolution, in OpenCV's memory layout; ``P2``: (B, 3, 4) float32
        and ``image_size``: (B, 2) float32, (width, height) [px], both of the original image. Returns the values of
        ``lib.postprocess.decode``, in the order of :data:`OUTPUTS`.
        """
        outputs = self.model(images.permute(0, 3, 1, 2), topk=self.topk)
        values = decode(outputs, P2, image_size, self.settings)
        return tuple(values[name] for name in OUTPUTS)


def describe_detector(config: Config) -> dict[str, str]:
    """The file's metadata: names to JSON values that a runner needs beside the graph."""
    values = {key: getattr(config.dataset, key) for key in ("class_names", "resolution", "meanshape")}
    values |= {key: getattr(config.tester, key) for key in ("threshold", "topk", "map_to_image")}
    values |= {"format": FORMAT, "backbone": config.model.backbone}
    return {name: json.dumps(value) for name, value in values.items()}


def to_onnx(detector: ExportableDetector, opset: int, metadata: Mapping[str, str]) -> bytes:
    """The content of an ONNX file whose batch size is free.

    Needs the packages onnx and onnxscript, and PyTorch >= 2.6. Raises ValueError where this PyTorch cannot export.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise ValueError(f"exporting needs PyTorch >= 2.6, this is {torch.__version__}")
    width, height = detector.settings.resolution
    # two images: with one, the exporter would treat the batch size as a constant
    example = (torch.zeros(2, height, width, 3, dtype=torch.uint8), torch.ones(2, 3, 4), torch.ones(2, 2))
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in INPUTS}
    names: dict[str, Any] = {"input_names": INPUTS, "output_names": OUTPUTS, "dynamic_shapes": shapes}
    settings: dict[str, Any] = {"dynamo": True, "opset_version": opset, "optimize": True, "verbose": False}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own deprecated parts
            program = torch.onnx.export(detector.eval(), example, **names, **settings)
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
