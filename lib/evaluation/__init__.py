"""Result files and label files -> average precision, by KITTI's protocol. numpy and numba only."""

from lib.evaluation.annotations import Annotations
from lib.evaluation.depth_error import DEPTH_BANDS, DepthError, DepthErrors, depth_errors
from lib.evaluation.folder import FolderFigures, evaluate_folder
from lib.evaluation.frames import FrameScores, frame_scores
from lib.evaluation.iou import bbox_overlaps
from lib.evaluation.kitti import (
    CLASSES,
    DISTANCE_BANDS,
    evaluate_annotations,
    evaluate_kitti,
    evaluate_objects,
    type_names_for,
)
from lib.evaluation.parsing import read_annotations
from lib.evaluation.result import DIFFICULTIES, METRICS, OVERLAPS, RECALLS, Curve, KittiResult
from lib.evaluation.rotated_iou import rotated_overlaps

__all__ = [
    "CLASSES",
    "DEPTH_BANDS",
    "DIFFICULTIES",
    "DISTANCE_BANDS",
    "METRICS",
    "OVERLAPS",
    "RECALLS",
    "Annotations",
    "Curve",
    "DepthError",
    "DepthErrors",
    "FolderFigures",
    "FrameScores",
    "KittiResult",
    "bbox_overlaps",
    "depth_errors",
    "evaluate_annotations",
    "evaluate_folder",
    "evaluate_kitti",
    "evaluate_objects",
    "frame_scores",
    "read_annotations",
    "rotated_overlaps",
    "type_names_for",
]
