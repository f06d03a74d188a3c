"""KITTI's rules: which of N ground truths and M detections, of all frames, count for one class at one difficulty."""

import numpy as np

from .annotations import BBOX, DONT_CARE, HEIGHT, LENGTH, OCCLUDED, TRUNCATED, WIDTH, X1, Y1, Y2, Annotations, X, Y, Z
from .protocol import MAX_OCCLUDED, MAX_TRUNCATED, MIN_HEIGHT, NEIGHBOURS, Band

VALID, IGNORED, OTHER_CLASS, DONT_CARE_AREA, NO_FALSE_POSITIVE = 0, 1, -1, -2, 2
"""VALID counts. IGNORED: a match is neither TP nor FP, a miss does not count. OTHER_CLASS: not of the class.
DONT_CARE_AREA: a DontCare label. NO_FALSE_POSITIVE: a detection that may be a TP, but is no FP."""


def label_states(labels: Annotations, cls: str, difficulty: str, band: Band | None = None) -> np.ndarray:
    """(N,) int8: VALID, IGNORED, DONT_CARE_AREA or OTHER_CLASS.

    With ``band``, ground truth whose depth z [m] is not in [band[0], band[1]) is ignored as well.
    """
    values, types = labels.values, labels.types
    height = values[:, Y2] - values[:, Y1]
    hidden = (values[:, OCCLUDED] > MAX_OCCLUDED[difficulty]) | (values[:, TRUNCATED] > MAX_TRUNCATED[difficulty])
    ignored = hidden | (height <= MIN_HEIGHT[difficulty])
    if band is not None:
        ignored |= ~_is_inside(values[:, Z], band)
    states = np.full(len(types), OTHER_CLASS, dtype=np.int8)
    states[types == DONT_CARE] = DONT_CARE_AREA
    own = types == labels.type_names.index(cls)
    states[own] = np.where(ignored[own], IGNORED, VALID)
    if cls in NEIGHBOURS:
        states[types == labels.type_names.index(NEIGHBOURS[cls])] = IGNORED
    return states


def detection_states(detections: Annotations, cls: str, difficulty: str, band: Band | None = None) -> np.ndarray:
    """(M,) int8: VALID, IGNORED (too small, of whatever class), NO_FALSE_POSITIVE (outside the band) or OTHER_CLASS."""
    values = detections.values
    states = np.full(len(values), OTHER_CLASS, dtype=np.int8)
    own = detections.types == detections.type_names.index(cls)
    states[own] = VALID
    if band is not None:
        states[own & ~_is_inside(values[:, Z], band)] = NO_FALSE_POSITIVE
    # The devkit truncates the height to an integer first, which makes no difference to "<" a whole number.
    states[np.abs(values[:, Y1] - values[:, Y2]) < MIN_HEIGHT[difficulty]] = IGNORED
    return states


def count_fields(labels: Annotations, detections: Annotations, cls: str) -> dict[str, np.ndarray]:
    """By metric (4, F): detections of the class, those with the fields that the metric needs; the same of labels.

    -1 and -1000 mean absent, as in the devkit. A detection without a 2D box (0 0 0 0 or -1 -1 -1 -1) is always ignored;
    if all are, the devkit's AP is 0.
    """
    columns = detections.values.T
    own = detections.types == detections.type_names.index(cls)
    has_box = own & (detections.values[:, BBOX] != detections.values[:, BBOX.start, None]).any(axis=1)
    has_bev = has_box & (columns[X] != -1000) & (columns[Z] != -1000) & (columns[WIDTH] > 0) & (columns[LENGTH] > 0)
    has_3d = has_bev & (columns[Y] != -1000) & (columns[HEIGHT] > 0)
    own_labels = labels.types == labels.type_names.index(cls)
    sized = own_labels & (labels.values[:, [HEIGHT, WIDTH, LENGTH]] > 0).all(axis=1)
    counts = {}
    for metric, usable in (("bbox", has_box & (columns[X1] >= 0)), ("bev", has_bev), ("3d", has_3d)):
        of_labels = (own_labels, own_labels if metric == "bbox" else sized)
        rows = [*map(detections.count_by_frame, (own, usable)), *map(labels.count_by_frame, of_labels)]
        counts[metric] = np.stack(rows)
    return counts


def has_ap(counts: np.ndarray) -> np.ndarray:
    """Whether a class has an AP in a metric, from sums (4, ..) of :func:`count_fields` -> (..).

    It has none if there are detections, or labels, and none with the fields. Without any detection it is 0.
    """
    detected, usable, labelled, sized = counts
    return ((usable > 0) | (detected == 0)) & ((sized > 0) | (labelled == 0))


def _is_inside(depth: np.ndarray, band: Band) -> np.ndarray:
    return (depth >= band[0]) & (depth < band[1])
