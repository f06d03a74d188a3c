"""One row for each detection and each missed label: what the evaluation made of it, for spreadsheets and pandas.

All detections count here, whatever their score, as at the lowest threshold. Overlaps are the official ones.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .annotations import SCORE, Annotations, Z
from .ignore_rules import IGNORED, VALID, detection_states, label_states
from .kitti import PairOverlaps, compute_overlaps, match_inputs, require_same_frames
from .matching import match_all
from .protocol import DIFFICULTIES, METRIC_TITLES, NO_OVERLAPS, OwnOverlaps, overlaps_for
from .reading import COLUMN_NAMES

_METRICS = ("bbox", "bev", "3d")
COLUMNS = (
    *("frame", "kind", "index", "class", "score", *COLUMN_NAMES[:SCORE], "label_index"),
    *(f"overlap_{METRIC_TITLES[metric]}" for metric in _METRICS),
    *("depth_error", *(f"{METRIC_TITLES[metric]}_{name}" for metric in _METRICS for name in DIFFICULTIES)),
)
"""kind: 'detection' or 'missed label'; index: of the object in its file, from 0; label_index: of the label that a
detection is matched to at 'hard' in 2D, or else in BEV, or else in 3D; overlap and depth_error (positive: too far) [m]
refer to that label; 2D_easy ..: 'tp', 'fp', 'fn', or 'ignored', empty for a label that is found."""


def dump_matches(
    labels: Annotations,
    detections: Annotations,
    classes: Sequence[str],
    own_overlaps: OwnOverlaps = NO_OVERLAPS,
) -> str:
    """CSV text with ``COLUMNS``, ordered by frame. Arguments, and ValueErrors, are those of
    :func:`evaluate_annotations`."""
    names = require_same_frames(labels, detections, classes)
    minimums = overlaps_for(names, own_overlaps)["official"]
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = compute_overlaps(labels, detections)
        rows = [row for cls in names for row in _rows_of_class(pairs, cls, minimums[cls])]
    rows.sort(key=lambda row: row[0])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    ids = labels.frame_ids or detections.frame_ids or [str(frame) for frame in range(labels.n_frames)]
    writer.writerows([ids[frame], *row] for frame, *row in rows)
    return text.getvalue()


def _rows_of_class(pairs: PairOverlaps, cls: str, minimums: Mapping[str, float]) -> list[list[Any]]:
    labels, detections = pairs.labels, pairs.detections
    of_labels = np.full((len(_METRICS) * len(DIFFICULTIES), len(labels.types)), "", dtype="<U7")
    of_detections = np.full((len(of_labels), len(detections.types)), "", dtype="<U7")
    matched_to = np.full(len(detections.types), -1)  # the label of each detection
    for k, (metric, difficulty) in enumerate((m, d) for m in _METRICS for d in DIFFICULTIES):
        gt_states, det_states = label_states(labels, cls, difficulty), detection_states(detections, cls, difficulty)
        match, in_area = match_all(match_inputs(pairs, metric, minimums[metric], gt_states, det_states))
        found = np.flatnonzero(match >= 0)
        taken = np.full(len(det_states), -1)
        taken[match[found]] = found
        state = np.where(in_area | (taken >= 0), "ignored", "fp")
        state[match[found[gt_states[found] == VALID]]] = "tp"
        of_detections[k] = np.where(det_states == VALID, state, "ignored")
        of_labels[k] = np.where(match >= 0, "", "fn")
        of_labels[k, found[det_states[match[found]] == IGNORED]] = "ignored"
        of_labels[k, gt_states == IGNORED] = "ignored"
        if difficulty == DIFFICULTIES[-1]:
            matched_to = np.where(matched_to < 0, taken, matched_to)
    own_label = labels.types == labels.type_names.index(cls)
    own_detection = detections.types == detections.type_names.index(cls)
    overlaps = _overlaps_with(pairs, matched_to)
    rows: list[list[Any]] = []
    frames = [np.repeat(np.arange(a.n_frames), np.diff(a.offsets)) for a in (labels, detections)]
    for j in np.flatnonzero(own_detection).tolist():
        i, frame = int(matched_to[j]), int(frames[1][j])
        values = detections.values[j].tolist()
        row = [frame, "detection", j - int(detections.offsets[frame]), cls, values[SCORE], *values[:SCORE]]
        if i < 0:
            row += [""] * 5
        else:
            error = values[Z] - float(labels.values[i, Z])
            row += [i - int(labels.offsets[frame]), *np.round(overlaps[:, j], 6).tolist(), round(error, 6)]
        rows.append(row + of_detections[:, j].tolist())
    for i in np.flatnonzero(own_label & (of_labels == "fn").any(axis=0)).tolist():
        frame = int(frames[0][i])
        row = [frame, "missed label", i - int(labels.offsets[frame]), cls, "", *labels.values[i, :SCORE].tolist()]
        rows.append(row + [""] * 5 + of_labels[:, i].tolist())
    return rows


def _overlaps_with(pairs: PairOverlaps, matched_to: np.ndarray) -> np.ndarray:
    """(3, M) overlap of each detection with the label ``matched_to`` (M,), in each metric."""
    number = len(matched_to)
    keys = pairs.gt_rows * number + pairs.det_rows  # ascending
    place = np.searchsorted(keys, matched_to * number + np.arange(number))
    place = np.minimum(place, max(len(keys) - 1, 0))
    return np.stack([pairs.overlaps[metric][place] if len(keys) else np.zeros(number) for metric in _METRICS])
