"""Average precision of KITTI's 3D object benchmark: the protocol of the devkit's C++ evaluator, exact and on a CPU.

    result = evaluate_kitti("data/KITTI/training/label_2", "outputs/data", None, ["Car"])
    print(result.table())
    result.ap("Car", "3d", "moderate")  # AP40 at overlap 0.7
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from .annotations import ALPHA, BBOX, BOX_3D, DONT_CARE, SCORE, Annotations, KittiObject, read_annotations
from .bootstrap import Draws, FigureKey, Replicates, Resampling
from .clusters import cluster_frames
from .ignore_rules import OTHER_CLASS, VALID, count_fields, detection_states, has_ap, label_states
from .iou import bbox_overlaps, candidate_pairs
from .matching import MatchInputs, ScoreRanks, count_by_frame, rank_scores
from .notes import count_equal_scores, explain_figures, explain_intervals, find_doubts
from .protocol import (
    AVERAGES,
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
from .sampling import group_frames, resample, sample_curve

_CHUNK = 1 << 15  # pairs compared at a time, so that memory does not grow with crowded frames


def evaluate_kitti(
    label_dir: str | Path,
    result_dir: str | Path,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
    bootstrap: int = 0,
    clusters: str | Path | None = None,
    seed: int = 0,
) -> KittiResult:
    """Evaluate a folder of result files (16 columns) against a folder of label files.

    ``ids``: frames such as '000123'; each must have a result file, an empty one for a frame without detections.
    None: the frames that have a result file. Files of other frames are not read.
    ``classes``, ``distance_bands``, ``own_overlaps``: see :func:`evaluate_annotations`.
    ``bootstrap``: number of replicates, 0 for none, of ``clusters``, see :func:`cluster_frames`; ``seed`` of the draws.

    Raises FileNotFoundError for a missing folder or file and ValueError, with file and line, for a malformed one.
    """
    labels, detections = read_folders(label_dir, result_dir, ids, classes)
    resampling = None
    if bootstrap:
        resampling = Resampling(cluster_frames(labels.frame_ids, label_dir, clusters), bootstrap, seed)
    return evaluate_annotations(labels, detections, classes, distance_bands, own_overlaps, resampling)


def read_folders(
    label_dir: str | Path, result_dir: str | Path, ids: Sequence[str] | None, classes: Sequence[str]
) -> tuple[Annotations, Annotations]:
    """Labels and detections as :func:`evaluate_kitti` reads them, and with its errors."""
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
        return read_annotations(label_dir, ids, False, names), detections
    except FileNotFoundError as error:
        hint = f"; these are files of {result_dir}, unless ids (--ids) names the frames" if of_results else ""
        raise FileNotFoundError(f"{error}{hint}") from None


def evaluate_objects(
    labels: Sequence[Sequence[KittiObject]],
    detections: Sequence[Sequence[KittiObject]],
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
    resampling: Resampling | None = None,
) -> KittiResult:
    """Evaluate parsed objects: ``labels[f]`` and ``detections[f]`` are those of frame f, in file order.

    Raises ValueError for a detection without score, a number that is not finite, or unequal numbers of frames.
    """
    names = type_names_for(normalise_classes(classes))
    both = Annotations.from_objects(labels, False, names), Annotations.from_objects(detections, True, names)
    return evaluate_annotations(*both, classes, distance_bands, own_overlaps, resampling)


def evaluate_annotations(
    labels: Annotations,
    detections: Annotations,
    classes: Sequence[str] = CLASSES,
    distance_bands: Sequence[Band] = (),
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
    resampling: Resampling | None = None,
) -> KittiResult:
    """Evaluate flat arrays (``read_annotations``, ``Annotations.from_objects``).

    ``classes``: 'Car', 'Pedestrian', 'Cyclist', and any other of the annotations' type names; those have no
    neighbouring type. ``own_overlaps``: official and loose overlap of such a class, (0.5, 0.25) if it is not there.
    ``distance_bands``: (near, far) [m of depth z]; for each the result has an entry in ``by_distance``, in which
    ground truth outside [near, far) is ignored, and a detection outside is no false positive where it matches nothing.
    ``resampling``: the draws of a bootstrap; the bands have none.
    Raises ValueError for classes, overlaps or bands that cannot be used, and for unequal numbers of frames.
    """
    names = require_same_frames(labels, detections, classes)
    overlaps = overlaps_for(names, own_overlaps)
    if resampling is not None and len(resampling.clusters.of_frame) != labels.n_frames:
        raise ValueError(f"resampling has {len(resampling.clusters.of_frame)} frames, labels have {labels.n_frames}")
    for near, far in distance_bands:
        if not near < far:
            raise ValueError(f"distance_bands: near must be below far, got ({near}, {far})")
    bands = {f"{near:g}-{far:g}": (near, far) for near, far in distance_bands}
    with np.errstate(over="ignore", invalid="ignore"):  # boxes of 1e300 px or m overflow, and then overlap nothing
        pairs = compute_overlaps(labels, detections)
        by_distance = {name: _evaluate(pairs, names, overlaps, band) for name, band in bands.items()}
        result = _evaluate(pairs, names, overlaps, None, resampling)
    notes = [note for name in names for note in explain_figures(labels, detections, result.curves, name)]
    if result.replicates is not None:
        notes += explain_intervals(result.replicates, names)
    notes += find_doubts(labels, "labels") + find_doubts(detections, "detections")
    return replace(result, by_distance=by_distance, notes=tuple(notes))


def require_same_frames(labels: Annotations, detections: Annotations, classes: Sequence[str]) -> tuple[str, ...]:
    """``classes`` in KITTI's spelling. Raises ValueError for unequal numbers of frames, and for an unknown class."""
    names = normalise_classes(classes)
    for name in names:
        if name not in labels.type_names or name not in detections.type_names:
            raise ValueError(f"classes: {name!r} is not among the type_names of the annotations")
    if labels.n_frames != detections.n_frames:
        raise ValueError(f"labels have {labels.n_frames} frames, detections have {detections.n_frames}")
    return names


@dataclass(frozen=True, eq=False)
class PairOverlaps:
    """All frames with the P pairs that may overlap: what classes, difficulties and overlap thresholds share."""

    labels: Annotations
    detections: Annotations
    gt_rows: np.ndarray  # (P,) int64, see :func:`candidate_pairs`
    det_rows: np.ndarray  # (P,) int64
    overlaps: dict[str, np.ndarray]  # for 'bbox', 'bev' and '3d' (P,)
    ranks: ScoreRanks


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
    ranks = rank_scores(detections.values[:, SCORE], detections.offsets)
    return PairOverlaps(labels, detections, gt_rows, det_rows, overlaps, ranks)


def _evaluate(
    pairs: PairOverlaps,
    classes: Sequence[str],
    overlaps: MinOverlaps,
    band: Band | None,
    resampling: Resampling | None = None,
) -> KittiResult:
    draws = None if resampling is None else resampling.draw()
    job = partial(_evaluate_difficulty, pairs, overlaps, band, draws)
    with ThreadPoolExecutor() as pool:  # compiled loops run beside each other
        parts = list(pool.map(job, *zip(*product(classes, DIFFICULTIES), strict=True)))
    curves = {key: curve for part, _ in parts for key, curve in part.items()}
    replicates = None
    if resampling is not None:
        replicates = Replicates(resampling, {key: values for _, part in parts for key, values in part.items()})
    labels, detections = pairs.labels, pairs.detections
    numbers = labels.n_frames, len(labels.types), len(detections.types)
    equal_scores = {cls: count_equal_scores(detections, pairs.ranks, cls) for cls in classes}
    return KittiResult(tuple(classes), *numbers, curves, equal_scores, overlaps, replicates=replicates)


@np.errstate(over="ignore", invalid="ignore")  # of the thread
def _evaluate_difficulty(
    pairs: PairOverlaps,
    overlaps: MinOverlaps,
    band: Band | None,
    draws: Draws | None,
    cls: str,
    difficulty: str,
) -> tuple[dict[tuple[str, str, str, str], Curve], dict[FigureKey, np.ndarray]]:
    """The curves of one class at one difficulty, and its figures in each replicate."""
    labels, detections = pairs.labels, pairs.detections
    gt_states = label_states(labels, cls, difficulty, band)
    det_states = detection_states(detections, cls, difficulty, band)
    angles = detections.values[:, ALPHA], labels.values[gt_states == VALID, ALPHA]
    oriented = not any((alpha == UNKNOWN_ALPHA).any() for alpha in angles)  # of whatever class, as in the devkit
    curves: dict[tuple[str, str, str, str], Curve] = {}
    replicates: dict[FigureKey, np.ndarray] = {}
    for metric, fields in count_fields(labels, detections, cls).items():
        if not has_ap(fields.sum(axis=1)):
            continue
        with_orientation = oriented and metric == "bbox"
        computed: dict[float, tuple[Curve, np.ndarray]] = {}  # official and loose 2D overlaps are the same
        for overlap, minimums in overlaps.items():
            minimum = minimums[cls][metric]
            if minimum not in computed:
                counts = count_by_frame(match_inputs(pairs, metric, minimum, gt_states, det_states))
                n_valid = int(np.count_nonzero(det_states == VALID))
                curve, figures = sample_curve(counts, pairs.ranks.scores, n_valid, with_orientation), np.empty(0)
                if draws is not None:
                    figures = resample(group_frames(counts, draws.of_frame), draws.weights)
                    figures[..., ~draws.have_ap(fields)] = np.nan
                computed[minimum] = curve, figures
            curves[overlap, cls, metric, difficulty], figures = computed[minimum]
            for kind in range(len(figures) if with_orientation else min(len(figures), 1)):
                name = (metric, "aos")[kind]
                replicates |= {(overlap, cls, name, difficulty, r): figures[kind, k] for k, r in enumerate(AVERAGES)}
    return curves, replicates


def match_inputs(
    pairs: PairOverlaps, metric: str, minimum: float, gt_states: np.ndarray, det_states: np.ndarray
) -> MatchInputs:
    """Pairs that overlap by more than ``minimum`` in a metric, of states as in ``ignore_rules`` (N,) and (M,)."""
    labels, detections, overlaps, ranks = pairs.labels, pairs.detections, pairs.overlaps[metric], pairs.ranks
    own_class = (gt_states[pairs.gt_rows] != OTHER_CLASS) & (det_states[pairs.det_rows] != OTHER_CLASS)
    kept = (overlaps > minimum) & own_class
    return MatchInputs(
        *(labels.offsets, gt_states, labels.values[:, ALPHA]),
        *(detections.offsets, det_states, detections.values[:, ALPHA]),
        *(ranks.ranks, ranks.order, ranks.lowest),
        starts=np.append(0, np.cumsum(np.bincount(pairs.gt_rows[kept], minlength=len(gt_states)))),
        rows=pairs.det_rows[kept],
        overlaps=overlaps[kept],
    )
