"""The detector as one ONNX file."""

from .exporter import export_checkpoint
from .onnx_graph import OLDEST_OPSET

__all__ = ["OLDEST_OPSET", "export_checkpoint"]
