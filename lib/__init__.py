"""Depth-discriminative monocular 3D object detection (DDML on MonoDLE) for KITTI."""

__version__ = "0.1.0"
