"""The content of KITTI's files: objects (labels and results), calibrations, splits."""

from ..evaluation.reading import (
    DRIVES_FILE,
    KITTI_TYPES,
    UNKNOWN_ALPHA,
    canonical_names,
    list_ids,
    read_lines,
    read_split,
    scan_split,
)
from .calibration import Calibration
from .camera import FrameInfo, focal_net
from .object3d import MAX_DEPTH, MIN_DEPTH, Object3d, read_objects, scan_objects

__all__ = [
    "DRIVES_FILE",
    "KITTI_TYPES",
    "MAX_DEPTH",
    "MIN_DEPTH",
    "UNKNOWN_ALPHA",
    "Calibration",
    "FrameInfo",
    "Object3d",
    "canonical_names",
    "focal_net",
    "list_ids",
    "read_lines",
    "read_objects",
    "read_split",
    "scan_objects",
    "scan_split",
]
