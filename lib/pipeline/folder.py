"""A folder of result files -> all figures of it: average precision and depth errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..analysis.depth_error import DepthErrors, depth_errors
from ..evaluation.annotations import Annotations
from ..evaluation.kitti import NO_OVERLAPS, Band, OwnOverlaps, evaluate_annotations, type_names_for
from ..evaluation.reading import read_annotations
from ..evaluation.result import KittiResult


class FolderFigures(NamedTuple):
    """The figures, and what they were computed from."""

    result: KittiResult
    depth: list[DepthErrors]
    """one for each class"""
    labels: Annotations
    detections: Annotations


def evaluate_folder(
    label_dir: Path,
    result_dir: Path,
    ids: Sequence[str],
    classes: Sequence[str],
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> FolderFigures:
    """Each of ``ids`` must have a file in both folders. The other arguments: see :func:`evaluate_annotations`.

    Raises FileNotFoundError for a missing folder or file and ValueError, with file and line, for a malformed one.
    """
    names = type_names_for(classes)
    labels = read_annotations(label_dir, ids, False, names)
    detections = read_annotations(result_dir, ids, True, names)
    result = evaluate_annotations(labels, detections, classes, distance_bands, own_overlaps)
    return FolderFigures(result, [depth_errors(labels, detections, name) for name in classes], labels, detections)
