"""What a reader of an evaluation's figures must know: why a figure is missing, what limits it, what looks wrong."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from .annotations import ALPHA, DONT_CARE, OCCLUDED, ROTATION_Y, TRUNCATED, Y1, Y2, Annotations, X, Z
from .bootstrap import Replicates
from .ignore_rules import IGNORED, VALID, count_fields, detection_states, label_states
from .matching import ScoreRanks
from .protocol import DIFFICULTIES, MAX_TRUNCATED, MIN_HEIGHT, N_SAMPLES
from .reading import UNKNOWN_ALPHA
from .result import Curve, EqualScores

_FEW_CLUSTERS = 20  # the intervals of fewer contain the expected AP less often than in 90 % (tools/bench/coverage.py)
_LARGEST_TURNS = {"labels": 1, "detections": 2}  # untrained networks may pass one: a bin's centre plus any residual


def explain_figures(
    labels: Annotations, detections: Annotations, curves: Mapping[tuple[str, str, str, str], Curve], cls: str
) -> list[str]:
    """Sentences about the figures of one class."""
    own = labels.types == labels.type_names.index(cls)
    if not own.any():
        return [f"{cls}: no label is of this class; types found: {_list_types(labels.count_types())}"]
    counts = {name: int((label_states(labels, cls, name)[own] == VALID).sum()) for name in DIFFICULTIES}
    notes = []
    if not any(counts.values()):
        notes.append(f"{cls}: all labels ({own.sum()}) are ignored: {_explain_ignored(labels.values[own])}")
    elif not all(counts.values()):
        notes.append(f"{cls}: no label counts at {', '.join(name for name, n in counts.items() if not n)}")
    few = {name: n for name, n in counts.items() if 0 < n < N_SAMPLES}
    if few:
        # The devkit samples recall at the scores of matches; the first sample, recall 0, is not part of AP40.
        share = 100 / (N_SAMPLES - 1)
        bounds = (f"{(n - 1) * share:.2f} at {name} ({n} object{'s'[: n > 1]})" for name, n in few.items())
        notes.append(f"{cls}: with so few objects no result can have an AP40 of more than {', '.join(bounds)}")
    found = detections.types == detections.type_names.index(cls)
    if not found.any() and any(counts.values()):
        notes.append(f"{cls}: no detection is of this class, so AP is 0 where ground truth counts")
    elif found.any() and (detection_states(detections, cls, DIFFICULTIES[-1])[found] == IGNORED).all():
        reason = f"lower than {MIN_HEIGHT[DIFFICULTIES[-1]]} px, or without a 2D box"
        notes.append(f"{cls}: all detections ({found.sum()}) are ignored: {reason}")
    metrics = {key[2] for key in curves if key[1] == cls}
    if "bbox" in metrics and "3d" not in metrics:
        sized = count_fields(labels, detections, cls)["3d"][3].any()
        which = "detection has a size above 0 and a position" if sized else "label has a size above 0"
        notes.append(f"{cls}: BEV or 3D is not computed, since no {which}")
    if any(curve.orientation is None for key, curve in curves.items() if key[1:3] == (cls, "bbox")):
        unknown = int((labels.values[own, ALPHA] == UNKNOWN_ALPHA).sum())
        known = (detections.values[:, ALPHA] != UNKNOWN_ALPHA).all()
        reason = f"alpha of {unknown} label{'s'[: unknown > 1]}" if known else "alpha of a detection"
        notes.append(f"{cls}: AOS is not computed, since {reason} is -10, unknown")
    return notes


def explain_intervals(replicates: Replicates, classes: Iterable[str]) -> list[str]:
    """Sentences about the intervals of a bootstrap."""
    notes, number = [], replicates.resampling.n_replicates
    n_clusters, unit = len(replicates.resampling.clusters.names), replicates.resampling.clusters.unit
    if n_clusters < _FEW_CLUSTERS:
        notes.append(f"the intervals are too narrow, since there are only {n_clusters} {unit}")
    for cls in classes:
        found = {name: replicates.interval(("official", cls, "bbox", name, "R40")).replicates for name in DIFFICULTIES}
        few = [f"{n} at {name}" for name, n in found.items() if 0 < n < number]
        if few:
            notes.append(f"{cls}: only some of {number} replicates have an AP, so intervals come from {', '.join(few)}")
    return notes


def count_equal_scores(detections: Annotations, ranks: ScoreRanks, cls: str) -> EqualScores:
    """Of the detections of one class."""
    order = ranks.order[detections.types[ranks.order] == detections.type_names.index(cls)]
    number = np.bincount(ranks.ranks[order], minlength=1)
    frames = np.searchsorted(detections.offsets, order, side="right")
    same = (np.diff(frames, prepend=-1) == 0) & (np.diff(ranks.ranks[order], prepend=-1) == 0)
    same |= np.append(same[1:], False)
    return EqualScores(len(order), int(number[number > 1].sum()), int(same[: len(order)].sum()))


def find_doubts(annotations: Annotations, kind: str) -> list[str]:
    """Sentences about values that cannot be right; ``kind``: 'labels' or 'detections'."""
    notes = []
    real = annotations.types != DONT_CARE  # DontCare areas have the angles -10
    angles = annotations.values[:, (ALPHA, ROTATION_Y)]
    limit = 2 * math.pi * _LARGEST_TURNS[kind] + 0.01  # files have two decimals
    wrong = ((abs(angles) > limit) & (angles != UNKNOWN_ALPHA)).any(axis=1) & real
    if wrong.any():
        first = int(np.searchsorted(annotations.offsets, np.flatnonzero(wrong)[0], side="right")) - 1
        place = f"{annotations.frame_ids[first]}.txt" if annotations.frame_ids else f"frame {first}"
        share, turns = f"{wrong.sum()} of {real.sum()} {kind}", 2 * _LARGEST_TURNS[kind]
        notes.append(f"{share} have an angle beyond {turns} pi, the first in {place}: are they in degrees?")
    alpha, x, z, rotation_y = annotations.values[real][:, (ALPHA, X, Z, ROTATION_Y)].T
    if len(alpha) and not alpha.any() and np.median(abs(np.sin((rotation_y - np.arctan2(x, z)) / 2))) > 0.05:
        notes.append(f"alpha is 0 in all {len(alpha)} {kind}, but rotation_y is not: AOS compares unknown headings")
    if kind == "detections" and annotations.other_types:
        notes.append(f"types of detections that are not evaluated: {_list_types(annotations.other_types)}")
    if kind == "labels" and annotations.n_scored:
        notes.append(f"the 16th column, a score, of {annotations.n_scored} of the labels is not used")
    return notes


def _list_types(counts: Mapping[str, int]) -> str:
    """The twelve most frequent ones; quoted, since 'Car:' is another type than 'Car'."""
    return ", ".join(f"{name!r} {number}" for name, number in Counter(counts).most_common(12)) or "none"


def _explain_ignored(values: np.ndarray) -> str:
    """Why labels do not count even at 'hard', each by its first reason."""
    hard = DIFFICULTIES[-1]
    height = values[:, Y2] - values[:, Y1]
    absent, low = height <= 0, (height > 0) & (height <= MIN_HEIGHT[hard])
    truncated = ~absent & ~low & (values[:, TRUNCATED] > MAX_TRUNCATED[hard])
    others = len(values) - int(absent.sum()) - int(low.sum()) - int(truncated.sum())
    reasons = {
        "without a 2D box": int(absent.sum()),
        f"not higher than {MIN_HEIGHT[hard]} px": int(low.sum()),
        f"truncated more than {MAX_TRUNCATED[hard]:g}": int(truncated.sum()),
        f"occluded {int(values[:, OCCLUDED].max())}": others,
    }
    return ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)
