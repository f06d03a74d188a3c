"""How far a run has come: what a checkpoint holds besides weights, so that a resumed run repeats nothing."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Changes with every step. ``epoch``, ``best`` are keys of a checkpoint of their own, the rest is 'progress'."""

    epoch: int = 0
    """epochs done"""
    best: float | None = None
    """best AP so far [%]"""
    frames_done: int = 0
    """frames of the running epoch that have had their turn; with those that could not be read"""
    images: int = 0
    """those of them that were trained on"""
    sums: dict[str, float] = field(default_factory=dict)
    """loss terms of the running epoch, summed over its images"""
    steps: int = 0
    """of the running epoch, those without images left out"""
    zeros: dict[str, int] = field(default_factory=dict)
    """how many of these steps a loss term was exactly 0 in, which trains nothing; terms that never were are left out"""
    seconds: float = 0.0
    """spent on the running epoch"""
    skipped: list[str] = field(default_factory=list)
    """ids of all frames of this run that could not be read"""
    skipped_now: int = 0
    """how many of the running epoch's frames could not be read"""
    record: dict[str, Any] | None = None
    """metrics of the last epoch, as long as it is not yet evaluated and logged"""
    order: tuple[int, int] = (0, 0)
    """(seed, number of frames) that the order of the frames depends on"""

    def state(self) -> dict[str, Any]:
        """What goes into a checkpoint under 'progress'."""
        content = dataclasses.asdict(self)
        return {name: value for name, value in content.items() if name not in ("epoch", "best")}

    @classmethod
    def from_checkpoint(cls, state: dict[str, Any], origin: Path, order: tuple[int, int]) -> Progress:
        """The place that a checkpoint was saved at; the beginning of the next epoch where it does not say more.

        ``order`` as above, of this run: where it is another one than the checkpoint's, the epoch that was interrupted
        is begun anew. Raises ValueError for a checkpoint without epoch.
        """
        epoch, best = state.get("epoch"), state.get("best")
        if not isinstance(epoch, int) or epoch < 0:
            raise ValueError(
                f"{origin}: no epoch in this checkpoint; use trainer.pretrain_model to start from its weights"
            )
        stored = state.get("progress") or {}
        if isinstance(stored, dict) and "pictures" in stored:  # its name in version 0.1
            stored = {"images" if name == "pictures" else name: value for name, value in stored.items()}
        names = {f.name for f in dataclasses.fields(cls)} - {"epoch", "best"}
        if not isinstance(stored, dict) or not set(stored) <= names:
            raise ValueError(f"{origin}: its 'progress' is not one that this version knows")
        progress = cls(epoch, best if isinstance(best, float) else None, **stored)
        if progress.frames_done and tuple(progress.order) != order:
            logger.warning(
                "%s: the seed or the number of training frames has changed since, so epoch %d is begun anew",
                origin,
                epoch + 1,
            )
            progress.begin_epoch()
        progress.order = order
        return progress

    def begin_epoch(self) -> None:
        """Nothing of the running epoch is done."""
        self.frames_done, self.images, self.sums, self.seconds, self.skipped_now = 0, 0, {}, 0.0, 0
        self.steps, self.zeros = 0, {}

    def finish_epoch(self, rate: float) -> None:
        """The epoch is done; its figures go to ``record``."""
        self.epoch += 1
        self.record = {
            "epoch": self.epoch,
            "lr": rate,
            "losses": self.means(),
            "samples_per_second": self.images / max(self.seconds, 1e-9),
        }
        if self.zeros:
            self.record["zero_share"] = {name: count / self.steps for name, count in sorted(self.zeros.items())}
        if self.skipped_now:
            self.record["skipped_frames"] = self.skipped_now
        self.begin_epoch()

    def add(self, losses: dict[str, float], images: int) -> None:
        """A step's terms."""
        self.images += images
        self.steps += images > 0
        for name, value in losses.items():
            if images and value == 0:
                self.zeros[name] = self.zeros.get(name, 0) + 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * images

    def means(self) -> dict[str, float]:
        """Of the running epoch's terms, over the images so far."""
        return {name: value / max(self.images, 1) for name, value in self.sums.items()}
