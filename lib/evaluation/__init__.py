"""Result files and label files -> average precision, by KITTI's protocol. numpy and numba only."""

from lib.evaluation.annotations import Annotations
from lib.evaluation.iou import bbox_overlaps
from lib.evaluation.kitti import (
    CLASSES,
    DISTANCE_BANDS,
    evaluate_annotations,
    evaluate_kitti,
    evaluate_objects,
)
from lib.evaluation.result import DIFFICULTIES, METRICS, OVERLAPS, RECALLS, Curve, KittiResult
from lib.evaluation.rotated_iou import rotated_overlaps

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
    "rotated_overlaps",
]
