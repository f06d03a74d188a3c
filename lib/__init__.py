"""Depth-discriminative monocular 3D object detection (DDML on MonoDLE) for KITTI."""

__version__ = "0.2.0"
