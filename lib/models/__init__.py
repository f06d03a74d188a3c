"""Tensors -> predictions."""

from .centernet3d import CenterNet3D, build_model

__all__ = ["CenterNet3D", "build_model"]
