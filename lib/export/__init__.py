"""The detector as one ONNX file."""
