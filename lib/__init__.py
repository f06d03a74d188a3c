"""Depth-discriminative monocular 3D object detection. The packages stand in the order in which a batch flows."""

__version__ = "0.1.0"
