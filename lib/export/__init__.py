"""The detector as one ONNX file, or as a checkpoint to hand out."""

from .exporter import export_checkpoint
from .onnx_graph import OLDEST_OPSET
from .release import release_checkpoint

__all__ = ["OLDEST_OPSET", "export_checkpoint", "release_checkpoint"]
