"""Tensors -> predictions."""

from .backbones import BACKBONES
from .centernet3d import CenterNet3D, build_model

__all__ = ["BACKBONES", "CenterNet3D", "build_model"]
