"""Average precision of KITTI's 3D object benchmark: the protocol of the devkit's C++ evaluator, exact and on a CPU.

    result = evaluate_kitti("data/KITTI/training/label_2", "outputs/data", None, ["Car"])
    print(result.table())
    result.ap("Car", "3d", "moderate")  # AP40 at overlap 0.7
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from .annotations import ALPHA, BBOX, BOX_3D, DONT_CARE, SCORE, Annotations, KittiObject, read_annotations
from .ignore_rules import OTHER_CLASS, VALID, detected_metrics, detection_states, has_sizes, label_states
from .iou import bbox_overlaps, candidate_pairs
from .matching import MatchInputs, precision_recall
from .notes import explain_figures, find_doubts
from .protocol import (
    CLASSES,
    DIFFICULTIES,
    NO_OVERLAPS,
    Band,
    MinOverlaps,
    OwnOverlaps,
    normalise_classes,
    overlaps_for,
    type_names_for,
)
from .reading import UNKNOWN_ALPHA, list_ids
from .result import Curve, KittiResult
from .rotated_iou import rotated_overlaps

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
    of_results = ids is None
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
    names = type_names_for(normalise_classes(classes))
    detections = read_annotations(result_dir, ids, True, names)
    try:
        labels = read_annotations(label_dir, ids, False, names)
    except FileNotFoundError as error:
        hint = f"; these are files of {result_dir}, unless ids (--ids) names the frames" if of_results else ""
        raise FileNotFoundError(f"{error}{hint}") from None
    return evaluate_annotations(labels, detections, classes, distance_bands, own_overlaps)


def evaluate_objects(
    labels: Sequence[Sequence[KittiObject]],
    detections: Sequence[Sequence[KittiObject]],
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> KittiResult:
    """Evaluate parsed objects: ``labels[f]`` and ``detections[f]`` are those of frame f, in file order.

    Raises ValueError for a detection without score, a number that is not finite, or unequal numbers of frames.
    """
    names = type_names_for(normalise_classes(classes))
    both = Annotations.from_objects(labels, False, names), Annotations.from_objects(detections, True, names)
    return evaluate_annotations(*both, classes, distance_bands, own_overlaps)


def evaluate_annotations(
    labels: Annotations,
    detections: Annotations,
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> KittiResult:
    """Evaluate flat arrays (``read_annotations``, ``Annotations.from_objects``).

    ``classes``: 'Car', 'Pedestrian', 'Cyclist', and any other of the annotations' type names; those have no
    neighbouring type. ``own_overlaps``: official and loose overlap of such a class, (0.5, 0.25) if it is not there.
    ``distance_bands``: (near, far) [m of depth z]; for each the result has an entry in ``by_distance``, in which
    ground truth outside [near, far) is ignored, and a detection outside is no false positive where it matches nothing.
    Raises ValueError for classes, overlaps or bands that cannot be used, and for unequal numbers of frames.
    """
    names = normalise_classes(classes)
    for name in names:
        if name not in labels.type_names or name not in detections.type_names:
            raise ValueError(f"classes: {name!r} is not among the type_names of the annotations")
    overlaps = overlaps_for(names, own_overlaps)
    if labels.n_frames != detections.n_frames:
        raise ValueError(f"labels have {labels.n_frames} frames, detections have {detections.n_frames}")
    for near, far in distance_bands:
        if not near < far:
            raise ValueError(f"distance_bands: near must be below far, got ({near}, {far})")
    bands = {f"{near:g}-{far:g}": (near, far) for near, far in distance_bands}
    with np.errstate(over="ignore", invalid="ignore"):  # boxes of 1e300 px or m overflow, and then overlap nothing
        pairs = compute_overlaps(labels, detections)
        by_distance = {name: _evaluate(pairs, names, overlaps, band) for name, band in bands.items()}
        result = _evaluate(pairs, names, overlaps, None)
    notes = [note for name in names for note in explain_figures(labels, detections, result.curves, name)]
    notes += find_doubts(labels, "labels") + find_doubts(detections, "detections")
    return replace(result, by_distance=by_distance, notes=tuple(notes))


@dataclass(frozen=True, eq=False)
class PairOverlaps:
    """All frames with the P pairs that may overlap: what classes, difficulties and overlap thresholds share."""

    labels: Annotations
    detections: Annotations
    gt_rows: np.ndarray  # (P,) int64, see :func:`candidate_pairs`
    det_rows: np.ndarray  # (P,) int64
    overlaps: dict[str, np.ndarray]  # for 'bbox', 'bev' and '3d' (P,)


def compute_overlaps(labels: Annotations, detections: Annotations) -> PairOverlaps:
    """Overlaps of all pairs that may overlap, in each metric."""
    # The steps below read single columns, which are contiguous in column-major order.
    labels = replace(labels, values=np.asfortranarray(labels.values))
    detections = replace(detections, values=np.asfortranarray(detections.values))
    gt_rows, det_rows = candidate_pairs(labels, detections)
    overlaps = {metric: np.empty(len(gt_rows)) for metric in ("bbox", "bev", "3d")}
    for start in range(0, len(gt_rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        gt, det = labels.values[gt_rows[part]], detections.values[det_rows[part]]
        stuff = labels.types[gt_rows[part]] == DONT_CARE
        overlaps["bbox"][part] = bbox_overlaps(gt[:, BBOX], det[:, BBOX], stuff)
        overlaps["bev"][part], overlaps["3d"][part] = rotated_overlaps(gt[:, BOX_3D], det[:, BOX_3D], stuff)
    return PairOverlaps(labels, detections, gt_rows, det_rows, overlaps)


def _evaluate(pairs: PairOverlaps, classes: Sequence[str], overlaps: MinOverlaps, band: Band | None) -> KittiResult:
    labels, detections = pairs.labels, pairs.detections
    oriented = not (detections.values[:, ALPHA] == UNKNOWN_ALPHA).any()  # of whatever class, as in the devkit
    curves: dict[tuple[str, str, str, str], Curve] = {}
    without_size = {cls for cls in classes if not has_sizes(labels, cls)}
    for cls, difficulty in product(classes, DIFFICULTIES):
        gt_states = label_states(labels, cls, difficulty, band)
        known = oriented and not (labels.values[gt_states == VALID, ALPHA] == UNKNOWN_ALPHA).any()
        det_states = detection_states(detections, cls, difficulty, band)
        for metric in detected_metrics(detections, cls):
            if metric != "bbox" and cls in without_size:
                continue
            computed: dict[float, Curve] = {}  # official and loose 2D overlaps are the same
            for overlap, minimums in overlaps.items():
                minimum = minimums[cls][metric]
                if minimum not in computed:
                    inputs = _match_inputs(pairs, metric, minimum, gt_states, det_states)
                    computed[minimum] = precision_recall(inputs, with_orientation=known and metric == "bbox")
                curves[overlap, cls, metric, difficulty] = computed[minimum]
    n_labels, n_detections = len(labels.types), len(detections.types)
    return KittiResult(tuple(classes), labels.n_frames, n_labels, n_detections, curves, overlaps)


def _match_inputs(
    pairs: PairOverlaps, metric: str, minimum: float, gt_states: np.ndarray, det_states: np.ndarray
) -> MatchInputs:
    labels, detections, overlaps = pairs.labels, pairs.detections, pairs.overlaps[metric]
    own_class = (gt_states[pairs.gt_rows] != OTHER_CLASS) & (det_states[pairs.det_rows] != OTHER_CLASS)
    kept = (overlaps > minimum) & own_class
    return MatchInputs(
        *(labels.offsets, gt_states, labels.values[:, ALPHA]),
        *(detections.offsets, det_states, detections.values[:, ALPHA], detections.values[:, SCORE]),
        starts=np.searchsorted(pairs.gt_rows[kept], np.arange(len(gt_states) + 1)),
        rows=pairs.det_rows[kept],
        overlaps=overlaps[kept],
    )
