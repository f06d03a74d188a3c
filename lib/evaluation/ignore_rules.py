"""Who counts: KITTI's rules for ground truth and detections of a class at a difficulty.

N ground truths and M detections of all frames.
"""

from __future__ import annotations

import numpy as np

from .annotations import DONT_CARE, OCCLUDED, TRUNCATED, Y1, Y2, Annotations, Z

MIN_HEIGHT = {"easy": 40, "moderate": 25, "hard": 25}
MAX_OCCLUDED = {"easy": 0, "moderate": 1, "hard": 2}
MAX_TRUNCATED = {"easy": 0.15, "moderate": 0.3, "hard": 0.5}
NEIGHBOURS = {"Car": "Van", "Pedestrian": "Person_sitting"}
"""Types so close to a class that finding them is neither right nor wrong."""

VALID, IGNORED, UNUSED, STUFF, NO_FALSE_POSITIVE = 0, 1, -1, -2, 2
"""States: UNUSED is another class, STUFF a DontCare area; NO_FALSE_POSITIVE may match but costs nothing unmatched."""


def label_states(labels: Annotations, cls: str, difficulty: str, band: tuple[float, float] | None) -> np.ndarray:
    """(N,) int8: VALID, IGNORED (must be found by nobody, may be by anybody), STUFF or UNUSED.

    With ``band``, ground truth whose depth z [m] is not in [band[0], band[1]) is ignored as well.
    """
    values, types = labels.values, labels.types
    height = values[:, Y2] - values[:, Y1]
    ignored = (
        (values[:, OCCLUDED] > MAX_OCCLUDED[difficulty])
        | (values[:, TRUNCATED] > MAX_TRUNCATED[difficulty])
        | (height <= MIN_HEIGHT[difficulty])
    )
    if band is not None:
        ignored |= ~_inside(values[:, Z], band)
    states = np.full(len(types), UNUSED, dtype=np.int8)
    states[types == DONT_CARE] = STUFF
    own = types == labels.type_names.index(cls)
    states[own] = np.where(ignored[own], IGNORED, VALID)
    if cls in NEIGHBOURS:
        states[types == labels.type_names.index(NEIGHBOURS[cls])] = IGNORED
    return states


def detection_states(
    detections: Annotations, cls: str, difficulty: str, band: tuple[float, float] | None
) -> np.ndarray:
    """(M,) int8: VALID, IGNORED (too small, of whatever class), NO_FALSE_POSITIVE (outside the band) or UNUSED."""
    values = detections.values
    states = np.full(len(values), UNUSED, dtype=np.int8)
    own = detections.types == detections.type_names.index(cls)
    states[own] = VALID
    if band is not None:
        states[own & ~_inside(values[:, Z], band)] = NO_FALSE_POSITIVE
    # the devkit cuts the height to an integer first, which "<" a whole number does not notice
    states[np.abs(values[:, Y1] - values[:, Y2]) < MIN_HEIGHT[difficulty]] = IGNORED
    return states


def _inside(depth: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    return (depth >= band[0]) & (depth < band[1])
