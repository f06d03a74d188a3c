"""Result files and label files -> average precision, by KITTI's protocol. numpy and numba only."""

from .annotations import Annotations
from .iou import bbox_overlaps
from .kitti import (
    CLASSES,
    DISTANCE_BANDS,
    evaluate_annotations,
    evaluate_kitti,
    evaluate_objects,
    type_names_for,
)
from .reading import read_annotations
from .result import DIFFICULTIES, METRICS, OVERLAPS, RECALLS, Curve, KittiResult
from .rotated_iou import rotated_overlaps

__all__ = [
    "CLASSES",
    "DIFFICULTIES",
    "DISTANCE_BANDS",
    "METRICS",
    "OVERLAPS",
    "RECALLS",
    "Annotations",
    "Curve",
    "KittiResult",
    "bbox_overlaps",
    "evaluate_annotations",
    "evaluate_kitti",
    "evaluate_objects",
    "read_annotations",
    "rotated_overlaps",
    "type_names_for",
]
