"""Whether an exported detector computes what PyTorch computes.

B images, K object slots an image, C classes, h x w the heatmap. Outputs have the names of ``lib/models/export.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.angles import NUM_HEADING_BINS

LIMIT = 1e-3
"""largest relative difference; what is closer than this counts as equal but for rounding"""
COMPARED = ("score", "heatmap", "bbox", "dimensions", "location", "rotation_y", "alpha")
ANGLES = ("rotation_y", "alpha")
_LEAST = {"score": 1e-9, "heatmap": 1e-9}
"""differences are relative to the value, but to no less than this; else than 1 px, 1 m, 1 rad"""


@dataclass
class Comparison:
    """What the exported file and PyTorch make of the same images."""

    differences: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPARED, 0.0))
    """largest relative one, by output"""
    objects: int = 0
    compared: int = 0
    """objects that both have found; of the others rounding decides whether they are peaks, or the last that is taken"""
    unexplained: int = 0
    """objects that one has found alone, for no such reason"""

    def add(
        self, exported: Mapping[str, np.ndarray], decoded: Mapping[str, np.ndarray], outputs: Mapping[str, Tensor]
    ) -> None:
        """A batch.

        Args:
            exported: what the file gives, (B, K, ..) by name.
            decoded: the same from PyTorch.
            outputs: of the network in PyTorch, before decoding.
        """
        heatmap = outputs["heatmap"].float().sigmoid()
        values, tied, certain = heatmap.numpy(), _tied(heatmap).numpy(), _certain(outputs["heading"]).numpy()
        for b in range(len(heatmap)):
            mine, theirs = ({name: value[b] for name, value in side.items()} for side in (exported, decoded))
            i, j = self._match(mine, theirs, values[b], tied[b])
            for name in COMPARED:
                kept = certain[b, j] if name in ANGLES else np.ones(len(j), bool)
                found = relative_difference(name, mine[name][i][kept], theirs[name][j][kept])
                self.differences[name] = max(self.differences[name], found)

    def require_equality(self, origin: str) -> None:
        """Raises FloatingPointError, beginning with ``origin``, where the two differ by more than rounding."""
        if not self.objects:
            raise FloatingPointError(f"{origin}: the heatmap has no peak to compare; is this checkpoint trained?")
        if self.unexplained:
            raise FloatingPointError(
                f"{origin}: {self.unexplained} objects are found by it or by PyTorch alone, of {self.objects}"
            )
        worst = max(self.differences, key=lambda name: self.differences[name])
        if not self.differences[worst] <= LIMIT:
            raise FloatingPointError(
                f"{origin}: it differs from PyTorch by {self.differences[worst]:.1e} in {worst}; {LIMIT:g} is allowed"
            )
        if self.compared < self.objects / 2:
            raise FloatingPointError(
                f"{origin}: only {self.compared} of {self.objects} objects can be compared, since the heatmap has the "
                "same value in many cells; is this checkpoint trained?"
            )

    def _match(
        self, mine: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], heatmap: np.ndarray, tied: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots of an image with the same cell and class; slots whose values are equal may stand in any order."""
        cells = [side["class_index"] * heatmap[0].size + side["cell"] for side in (mine, theirs)]
        same = cells[0][:, None] == cells[1]
        i, j = same.nonzero()
        self.objects += int((theirs["heatmap"] > 0).sum())
        self.compared += int((theirs["heatmap"][j] > 0).sum())
        for side, other, cell, matched in (
            (mine, theirs, cells[0], same.any(1)),
            (theirs, mine, cells[1], same.any(0)),
        ):
            value, alone = side["heatmap"][~matched], cell[~matched]
            right = np.abs(heatmap.take(alone, mode="clip") - value) <= LIMIT * value
            last = value <= other["heatmap"].min() * (1 + LIMIT)
            explained = right & (tied.take(alone, mode="clip") | last)
            self.unexplained += int((~explained & (value > 0)).sum())  # slots after the last peak have 0
        return i, j


def relative_difference(name: str, mine: np.ndarray, theirs: np.ndarray) -> float:
    """The largest one over N objects, (N, ..), relative to an object's largest component; inf for what is no number."""
    if not mine.size:
        return 0.0
    mine, theirs = (array.astype(np.float64).reshape(len(array), -1) for array in (mine, theirs))
    difference = np.abs(mine - theirs)
    if name in ANGLES:
        difference = np.abs((difference + np.pi) % (2 * np.pi) - np.pi)  # pi and -pi are the same
    scale = np.maximum(np.abs(theirs).max(axis=1), _LEAST.get(name, 1.0))
    worst = float((difference.max(axis=1) / scale).max())
    return worst if np.isfinite(worst) else float("inf")


def _tied(heatmap: Tensor) -> Tensor:
    """(B, C, h, w) -> the same, bool: whether a cell equals the best of its eight neighbours but for rounding."""
    height, width = heatmap.shape[2:]
    padded = F.pad(heatmap, (1, 1, 1, 1), value=-1.0)
    places = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    around = torch.stack([padded[..., y : y + height, x : x + width] for y, x in places]).amax(0)
    return (heatmap - around).abs() <= LIMIT * heatmap


def _certain(heading: Tensor) -> Tensor:
    """(B, K, 24) -> (B, K), bool: whether the best bin is ahead of the second by more than rounding."""
    best, second = heading[..., :NUM_HEADING_BINS].topk(2, dim=2).values.unbind(2)
    return best - second > LIMIT * best.abs()
