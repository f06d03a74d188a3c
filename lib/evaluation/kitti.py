"""Average precision of KITTI's 3D object benchmark: the protocol of the devkit's C++ evaluator, exact and on a CPU.

    result = evaluate_kitti("data/KITTI/training/label_2", "outputs/data", None, ["Car"])
    print(result.table())
    result.ap("Car", "3d", "moderate")  # AP40 at overlap 0.7
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..structures import Object3d
from .annotations import (
    ALPHA,
    BBOX,
    BOX_3D,
    DONT_CARE,
    HEIGHT,
    LENGTH,
    SCORE,
    TYPE_NAMES,
    WIDTH,
    X1,
    Annotations,
    X,
    Y,
    Z,
)
from .ignore_rules import detection_states, label_states
from .iou import bbox_overlaps, candidate_pairs
from .matching import Case, precision_recall
from .reading import list_ids, read_annotations
from .result import DIFFICULTIES, Curve, KittiResult, overlaps_for
from .rotated_iou import rotated_overlaps

logger = logging.getLogger(__name__)

CLASSES = ("Car", "Pedestrian", "Cyclist")
DISTANCE_BANDS = ((0.0, 30.0), (30.0, 50.0), (50.0, 70.0))
"""[m] of depth z, the customary ones"""

Band = tuple[float, float]
Overlaps = dict[str, dict[str, dict[str, float]]]
OwnOverlaps = Mapping[str, tuple[float, float]]
NO_OVERLAPS: OwnOverlaps = MappingProxyType({})

_CHUNK = 1 << 15  # pairs compared at a time, so that memory does not grow with crowded frames


def evaluate_kitti(
    label_dir: str | Path,
    result_dir: str | Path,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> KittiResult:
    """Evaluate a folder of result files (16 columns) against a folder of label files.

    ``ids``: frames such as '000123'; each must have a result file, an empty one for a frame without detections.
    None: the frames that have a result file. Files of other frames are not read.
    ``classes``, ``distance_bands``, ``own_overlaps``: see :func:`evaluate_annotations`.

    Raises FileNotFoundError for a missing folder or file and ValueError, with file and line, for a malformed one.
    """
    if ids is None:
        ids = list_ids(result_dir)
        if not ids:
            data = Path(result_dir) / "data"
            hint = f"; did you mean {data}?" if data.is_dir() else ""
            raise FileNotFoundError(f"{result_dir}: no result files (000000.txt, ..){hint}")
    if isinstance(ids, str) or not ids:
        raise ValueError(f"ids must be a sequence with at least one frame, or None for all result files; got {ids!r}")
    if len(set(ids)) != len(ids):
        repeated = next(frame for k, frame in enumerate(ids) if frame in ids[:k])
        raise ValueError(f"ids: frame {repeated!r} is listed twice")
    names = type_names_for(_check_classes(classes))
    detections = read_annotations(result_dir, ids, True, names)
    labels = read_annotations(label_dir, ids, False, names)
    return evaluate_annotations(labels, detections, classes, distance_bands, own_overlaps)


def evaluate_objects(
    labels: Sequence[Sequence[Object3d]],
    detections: Sequence[Sequence[Object3d]],
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> KittiResult:
    """Evaluate parsed objects: ``labels[f]`` and ``detections[f]`` are those of frame f, in file order.

    Raises ValueError for a detection without score, a number that is not finite, or unequal numbers of frames.
    """
    names = type_names_for(_check_classes(classes))
    return evaluate_annotations(
        Annotations.from_objects(labels, False, names),
        Annotations.from_objects(detections, True, names),
        classes,
        distance_bands,
        own_overlaps,
    )


def evaluate_annotations(
    labels: Annotations,
    detections: Annotations,
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> KittiResult:
    """Evaluate flat arrays (``Annotations.from_arrays`` makes them).

    ``classes``: 'Car', 'Pedestrian', 'Cyclist', and any other type that the annotations know; of that no type is a
    neighbour that may be found unpunished. ``own_overlaps``: its least overlap and loose overlap, (0.5, 0.25) if it
    is not there.
    ``distance_bands``: (near, far) [m of depth z]; for each the result has an entry in ``by_distance``, in which
    ground truth outside [near, far) is ignored, and a detection outside is no false positive where it matches nothing.
    """
    names = _check_classes(classes)
    for name in names:
        if name not in labels.type_names or name not in detections.type_names:
            raise ValueError(f"classes: the annotations do not know {name!r}; give their type_names")
        if name not in CLASSES and not (labels.types == labels.type_names.index(name)).any():
            raise ValueError(f"classes: no label is of the class {name!r}; KITTI evaluates {', '.join(CLASSES)}")
    overlaps = overlaps_for(names, own_overlaps)
    if labels.n_frames != detections.n_frames:
        raise ValueError(f"labels have {labels.n_frames} frames, detections have {detections.n_frames}")
    for near, far in distance_bands:
        if not near < far:
            raise ValueError(f"distance_bands: near must be below far, got ({near}, {far})")
    bands = {f"{near:g}-{far:g}": (near, far) for near, far in distance_bands}
    with np.errstate(over="ignore", invalid="ignore"):  # boxes of 1e300 px or m overflow, and then overlap nothing
        scene = compare(labels, detections)
        by_distance = {name: _evaluate(scene, names, overlaps, band) for name, band in bands.items()}
        return replace(_evaluate(scene, names, overlaps, None), by_distance=by_distance)


def _check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str) or not classes:
        raise ValueError(f"classes must be a sequence of names such as {', '.join(CLASSES)}, got {classes!r}")
    by_lower = {name.lower(): name for name in CLASSES}
    for name in classes:
        if not name.isascii() or len(name.split()) != 1 or name.lower() == "dontcare":
            raise ValueError(f"classes: {name!r} cannot be evaluated; a class is one ASCII word and not DontCare")
    return tuple(dict.fromkeys(by_lower.get(name.lower(), name) for name in classes))


def type_names_for(classes: Sequence[str]) -> tuple[str, ...]:
    """The protocol's types, and after them those of ``classes`` that it does not know."""
    known = {name.lower() for name in TYPE_NAMES}
    return (*TYPE_NAMES, *(name for name in classes if name.lower() not in known))


@dataclass(frozen=True, eq=False)
class Scene:
    """All frames, and what classes, difficulties and overlap thresholds share."""

    labels: Annotations
    detections: Annotations
    starts: np.ndarray
    rows: np.ndarray
    overlaps: dict[str, np.ndarray]
    """per metric (P,)"""


def compare(labels: Annotations, detections: Annotations) -> Scene:
    """Overlaps of all pairs that may overlap, in each metric."""
    # the steps below read single columns; of a row by row array they would waste most of what they move
    labels = replace(labels, values=np.asfortranarray(labels.values))
    detections = replace(detections, values=np.asfortranarray(detections.values))
    starts, rows = candidate_pairs(labels, detections)
    gt_rows = np.repeat(np.arange(len(labels.types)), np.diff(starts))
    overlaps = {metric: np.empty(len(rows)) for metric in ("bbox", "bev", "3d")}
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        gt, det = labels.values[gt_rows[part]], detections.values[rows[part]]
        stuff = labels.types[gt_rows[part]] == DONT_CARE
        overlaps["bbox"][part] = bbox_overlaps(gt[:, BBOX], det[:, BBOX], stuff)
        overlaps["bev"][part], overlaps["3d"][part] = rotated_overlaps(gt[:, BOX_3D], det[:, BOX_3D], stuff)
    logger.debug("%d frames, %d pairs that may overlap", labels.n_frames, len(rows))
    return Scene(labels, detections, starts, rows, overlaps)


def _detected_metrics(detections: Annotations, cls: str) -> list[str]:
    """Metrics in which at least one detection of the class is meant seriously, by the devkit's marks (-1, -1000)."""
    columns = detections.values.T
    own = detections.types == detections.type_names.index(cls)
    on_ground = (columns[X] != -1000) & (columns[Z] != -1000) & (columns[WIDTH] > 0) & (columns[LENGTH] > 0)
    in_space = on_ground & (columns[Y] != -1000) & (columns[HEIGHT] > 0)
    detected = {"bbox": columns[X1] >= 0, "bev": on_ground, "3d": in_space}
    return [metric for metric, valid in detected.items() if (own & valid).any()]


def _evaluate(scene: Scene, classes: tuple[str, ...], overlaps: Overlaps, band: Band | None) -> KittiResult:
    curves: dict[tuple[str, str, str, str], Curve] = {}
    for cls in classes:
        metrics = _detected_metrics(scene.detections, cls)
        for difficulty in DIFFICULTIES:
            curves |= _evaluate_class(scene, cls, metrics, difficulty, overlaps, band)
    n_labels, n_detections = len(scene.labels.types), len(scene.detections.types)
    return KittiResult(classes, scene.labels.n_frames, n_labels, n_detections, curves, overlaps)


def _evaluate_class(
    scene: Scene, cls: str, metrics: list[str], difficulty: str, overlaps: Overlaps, band: Band | None
) -> dict[tuple[str, str, str, str], Curve]:
    labels, detections = scene.labels, scene.detections
    gt_states = label_states(labels, cls, difficulty, band)
    det_states = detection_states(detections, cls, difficulty, band)
    scores, det_alpha = detections.values[:, SCORE], detections.values[:, ALPHA]
    oriented = not (det_alpha == -10).any()  # of whatever class, as in the devkit
    curves = {}
    for metric in metrics:
        done: dict[float, Curve] = {}  # official and loose 2D overlaps are the same
        for overlap, minimums in overlaps.items():
            minimum = minimums[cls][metric]
            if minimum not in done:
                case = Case(
                    *(labels.offsets, detections.offsets, scene.starts, scene.rows, scene.overlaps[metric], minimum),
                    *(gt_states, det_states, scores, labels.values[:, ALPHA], det_alpha),
                )
                done[minimum] = precision_recall(case, with_orientation=oriented and metric == "bbox")
            curves[overlap, cls, metric, difficulty] = done[minimum]
    return curves
