"""Columns of labels against each other: alpha against rotation_y, and the 2D box against the projected 3D box.

In KITTI's own 7481 label files 13 of 40,570 objects contradict themselves by alpha, and 191 of 35,179 untruncated ones
by their box. A larger share means that a converter wrote another convention, which is found by trying.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np

from ..structures import UNKNOWN_ALPHA, Calibration, Object3d

ALPHA_TOLERANCE = 0.1  # [rad]
MIN_OVERLAP = 0.5  # of the labelled 2D box and the box around the projected corners
SURE_SHARE, SURE_COUNT = 0.1, 5  # more contradictions than both are a systematic error
_TRIED = 500  # objects with which causes are tried
_SIGNS = np.array([[1, 1, -1, -1, 1, 1, -1, -1], [0, 0, 0, 0, -1, -1, -1, -1], [-1, 1, 1, -1, -1, 1, 1, -1]])
"""(3, 8) corners: along the heading, down, to the right"""


@dataclass(frozen=True)
class Columns:
    """Columns of N labels that have a 3D box, and their cameras."""

    alpha: np.ndarray
    rotation_y: np.ndarray  # (N,) both [rad]
    dimensions: np.ndarray  # (N, 3) height, width, length [m]
    location: np.ndarray  # (N, 3) centre of the bottom face [m, rectified camera]
    bbox: np.ndarray  # (N, 4) 2D box [px]
    P2: np.ndarray  # (N, 3, 4)
    image_size: np.ndarray  # (N, 2) width, height [px]
    untruncated: np.ndarray  # (N,) bool

    def take(self, rows: np.ndarray | slice) -> "Columns":
        """The labels of some rows."""
        return Columns(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def differs_in_alpha(self) -> np.ndarray:
        """(N,) bool: alpha is not rotation_y - atan2(x, z); False where alpha is unknown."""
        difference = self.alpha - (self.rotation_y - np.arctan2(self.location[:, 0], self.location[:, 2]))
        wrapped = abs((difference + np.pi) % (2 * np.pi) - np.pi)
        return (wrapped > ALPHA_TOLERANCE) & (self.alpha != UNKNOWN_ALPHA)

    def has_whole_box(self) -> np.ndarray:
        """(N,) bool: the two boxes can be compared, since the object is untruncated, in front and has both."""
        x1, y1, x2, y2 = self.bbox.T
        in_front = self.location[:, 2] > np.hypot(self.dimensions[:, 1], self.dimensions[:, 2]) / 2 + 0.5
        return self.untruncated & (x2 > x1) & (y2 > y1) & in_front

    def box_overlaps(self) -> np.ndarray:
        """(N,) overlap of the two boxes inside the image, 0..1; 1 where they are not comparable."""
        cos, sin = np.cos(self.rotation_y)[:, None], np.sin(self.rotation_y)[:, None]
        height, width, length = self.dimensions.T[:, :, None]
        along, down, right = _SIGNS[0] * length / 2, _SIGNS[1] * height, _SIGNS[2] * width / 2
        corners = np.stack([cos * along + sin * right, down, cos * right - sin * along], 2) + self.location[:, None]
        u, v, w = np.moveaxis(corners @ self.P2[:, :, :3].swapaxes(1, 2) + self.P2[:, None, :, 3], 2, 0)
        w = np.maximum(w, 0.01)
        size = np.tile(self.image_size, 2)
        projected = np.stack([(u / w).min(1), (v / w).min(1), (u / w).max(1), (v / w).max(1)], 1)
        a, b = projected.clip(0, size), self.bbox.clip(0, size)
        sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        inner = sides.clip(min=0).prod(axis=1)
        union = sum((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b)) - inner
        return np.divide(inner, union, out=np.ones(len(inner)), where=self.has_whole_box() & (union > 0))


def _change(**changes: Callable[[Columns], np.ndarray]) -> Callable[[Columns], Columns]:
    return lambda c: replace(c, **{name: change(c) for name, change in changes.items()})


def _to_radians(angles: np.ndarray) -> np.ndarray:
    """Unchanged where no angle is beyond a full turn, since then they are no degrees."""
    known = angles[angles != UNKNOWN_ALPHA]
    return np.radians(angles) if len(known) and abs(known).max() > 2 * np.pi + 0.01 else angles


def _reorder(order: Sequence[int]) -> Callable[[Columns], Columns]:
    return _change(dimensions=lambda c: c.dimensions[:, list(order)])


CAUSES: dict[str, Callable[[Columns], Columns]] = {
    "angles are in degrees": _change(
        alpha=lambda c: np.where(c.alpha == UNKNOWN_ALPHA, c.alpha, _to_radians(c.alpha)),
        rotation_y=lambda c: _to_radians(c.rotation_y),
    ),
    "rotation_y is a yaw about the upward axis, 0 where the front points away (expected: about the downward axis, 0 "
    "where it points along +x)": _change(rotation_y=lambda c: -c.rotation_y - np.pi / 2),
    "rotation_y has the opposite sign": _change(rotation_y=lambda c: -c.rotation_y),
    "rotation_y is half a turn off": _change(rotation_y=lambda c: c.rotation_y + np.pi),
    "rotation_y has another zero (expected: 0 where the front points along +x)": _change(
        rotation_y=lambda c: c.rotation_y + np.pi / 2
    ),
    **{
        f"dimensions are written as {', '.join(('height', 'width', 'length')[order.index(k)] for k in range(3))} "
        "(expected: height, width, length)": _reorder(order)
        for order in permutations(range(3))
        if order != (0, 1, 2)
    },
    "y is the centre of the box (expected: its bottom)": _change(
        location=lambda c: c.location + c.dimensions[:, :1] * (0, 0.5, 0)
    ),
    "alpha is the same in all labels": _change(
        alpha=lambda c: c.rotation_y - np.arctan2(*c.location[:, [0, 2]].T) if np.ptp(c.alpha) == 0 else c.alpha
    ),
    "alpha is a copy of rotation_y": _change(
        alpha=lambda c: (
            c.alpha - np.arctan2(*c.location[:, [0, 2]].T) if np.allclose(c.alpha, c.rotation_y, atol=0.02) else c.alpha
        )
    ),
    "alpha has the opposite sign": _change(alpha=lambda c: np.where(c.alpha == UNKNOWN_ALPHA, c.alpha, -c.alpha)),
}
"""What converters do differently, and the change that undoes it; applied in this order."""


@dataclass(frozen=True)
class Consistency:
    """Contradictions of N labels."""

    labels: int
    alpha: np.ndarray  # rows of the contradictions by alpha, among the labels that were passed in
    compared_boxes: int
    box: np.ndarray  # rows of the contradictions by box
    cause: str  # what explains them; empty where nothing is systematic

    @property
    def systematic(self) -> bool:
        """Whether a share of the labels contradicts itself that cannot be chance."""
        return _is_sure(len(self.alpha), self.labels) or _is_sure(len(self.box), self.compared_boxes)

    def describe(self) -> str:
        """One sentence with both counts and the cause; empty where nothing contradicts."""
        parts = [
            f"alpha is not rotation_y - atan2(x, z) in {len(self.alpha)} of {self.labels} labels",
            f"the 3D box projects elsewhere than the 2D box in {len(self.box)} of {self.compared_boxes} untruncated "
            "labels",
        ]
        text = "; ".join(part for part, rows in zip(parts, (self.alpha, self.box), strict=True) if len(rows))
        return f"{text}; likely cause: {self.cause}" if self.cause else text


def check_consistency(labels: Iterable[tuple[tuple[int, int], Calibration, Object3d]]) -> Consistency:
    """Compare the columns of labels; each comes with its image's size (width, height) [px] and its camera.

    Labels without a 3D box, such as DontCare, are not compared.
    """
    placed = [(row, *label) for row, label in enumerate(labels) if min(label[2].dimensions) > 0]
    if not placed:
        return Consistency(0, np.empty(0, int), 0, np.empty(0, int), "")
    rows = np.array([row for row, *_ in placed])
    truncated = np.array([obj.truncated for *_, obj in placed])
    columns = Columns(
        alpha=np.array([obj.alpha for *_, obj in placed], np.float64),
        rotation_y=np.array([obj.rotation_y for *_, obj in placed], np.float64),
        dimensions=np.array([obj.dimensions for *_, obj in placed], np.float64),
        location=np.array([obj.location_cam for *_, obj in placed], np.float64),
        bbox=np.array([obj.bbox_img for *_, obj in placed], np.float64),
        P2=np.array([calibration.P2 for _, _, calibration, _ in placed]),
        image_size=np.array([size for _, size, _, _ in placed]),
        untruncated=truncated <= (0 if (truncated <= 0).mean() > SURE_SHARE else 0.3),  # some converters write no 0
    )
    alpha, box = np.flatnonzero(columns.differs_in_alpha()), np.flatnonzero(columns.box_overlaps() < MIN_OVERLAP)
    result = Consistency(len(rows), rows[alpha], int(columns.has_whole_box().sum()), rows[box], "")
    return replace(result, cause=_find_cause(columns)) if result.systematic else result


def _find_cause(columns: Columns) -> str:
    """The fewest changes, at most two, after which few labels contradict themselves; of those the best."""
    columns = columns.take(slice(None, None, -(-len(columns.alpha) // _TRIED)))
    for number in (1, 2):
        found: dict[tuple[str, ...], float] = {}
        for changes in combinations(CAUSES, number):
            changed = columns
            for name in changes:
                changed = CAUSES[name](changed)
            wrong, overlaps = changed.differs_in_alpha().mean(), changed.box_overlaps()
            boxes = max(1, int(changed.has_whole_box().sum()))
            if wrong <= SURE_SHARE and (overlaps < MIN_OVERLAP).sum() <= SURE_SHARE * boxes:
                found[changes] = wrong - overlaps.mean()
        if found:
            return " and ".join(min((score, names) for names, score in found.items())[1])
    return "none of the usual ones; docs/other_data.md describes the columns"


def _is_sure(number: int, of: int) -> bool:
    return number >= SURE_COUNT and number > SURE_SHARE * of
