"""Training progress, stored in a checkpoint so that a resumed run continues at the next step."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
import types
import typing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..config.checks import shown
from ..ops.text import counted

logger = logging.getLogger(__name__)

_RENAMED = {"pictures": "images"}  # names in checkpoints of version 0.1


@dataclass
class Progress:
    """Changes with every step. ``epoch`` and ``best`` are keys of a checkpoint themselves, the rest is 'progress'."""

    epoch: int = 0
    """epochs done"""
    best: float | None = None
    """best AP so far [%]"""
    frames_done: int = 0
    """frames of this epoch consumed so far, unreadable ones included"""
    images: int = 0
    """frames of this epoch that were trained on"""
    sums: dict[str, float] = field(default_factory=dict)
    """losses of this epoch, summed over its images"""
    steps: int = 0
    """steps of this epoch, without those that had no images"""
    zeros: dict[str, int] = field(default_factory=dict)
    """by loss: steps of this epoch in which it was exactly 0, and so trained nothing; absent if there were none"""
    seconds: float = 0.0
    """spent on this epoch"""
    skipped: list[str] = field(default_factory=list)
    """ids of all frames of the run that could not be read"""
    skipped_now: int = 0
    """number of this epoch's frames that could not be read"""
    record: dict[str, Any] | None = None
    """metrics of the last epoch, until its evaluation is done and they are written"""
    order: tuple[int, int] = (0, 0)
    """(seed, number of frames), which the order of the frames depends on"""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds under 'progress'."""
        content = dataclasses.asdict(self)
        return {name: value for name, value in content.items() if name not in ("epoch", "best")}

    @classmethod
    def from_checkpoint(cls, state: dict[str, Any], origin: Path, order: tuple[int, int]) -> Progress:
        """The progress that a checkpoint was saved with; the start of its next epoch for an official checkpoint.

        ``order``: of this run; if it is not the checkpoint's, the interrupted epoch starts again. Raises ValueError for
        a checkpoint without epoch or with a progress that no training has written.
        """
        epoch, best = state.get("epoch"), state.get("best")
        if epoch is None:
            raise ValueError(
                f"{origin}: no epoch in this checkpoint; use trainer.pretrain_model to start from its weights"
            )
        stored = state.get("progress") if state.get("progress") is not None else {}
        hints = typing.get_type_hints(cls)
        if isinstance(stored, dict):
            stored = {_RENAMED.get(name, name): value for name, value in stored.items()}
        if not isinstance(stored, dict) or not set(stored) <= set(hints) - {"epoch", "best"}:
            raise ValueError(f"{origin}: its 'progress' is not one that this version knows")
        for name, value in stored.items():
            if not _fits(value, hints[name]):
                raise ValueError(f"{origin}: its progress.{name} is {shown(value)}, which no training has written")
        record = stored.get("record")
        if record is not None and not (_is_new_record(record) and record["epoch"] == epoch > 0):
            raise ValueError(f"{origin}: its progress.record is not that of its epoch, {epoch}")
        best = best if isinstance(best, float) and math.isfinite(best) else None
        progress = cls(epoch, best, **stored)
        if progress.frames_done and tuple(progress.order) != order:
            logger.warning(
                "%s: the seed or the number of training frames has changed since, so epoch %d restarts",
                origin,
                epoch + 1,
            )
            progress.begin_epoch()
        if progress.frames_done > order[1]:
            raise ValueError(f"{origin}: its progress.frames_done is {progress.frames_done}, more than an epoch has")
        progress.order = order
        return progress

    @property
    def epochs_done(self) -> float:
        """With the part of the current epoch that is done."""
        return self.epoch + self.frames_done / max(self.order[1], 1)

    def begin_epoch(self) -> None:
        """Reset everything that counts within an epoch."""
        self.frames_done, self.images, self.sums, self.seconds, self.skipped_now = 0, 0, {}, 0.0, 0
        self.steps, self.zeros = 0, {}

    def finish_epoch(self, rate: float) -> None:
        """Count the epoch as done and move its metrics to ``record``; ``rate``: its learning rate."""
        self.epoch += 1
        self.record = {
            "epoch": self.epoch,
            "lr": rate,
            "losses": self.means(),
            "samples_per_second": self.images / max(self.seconds, 1e-9),
        }
        if self.zeros:
            self.record["zero_share"] = {name: count / max(self.steps, 1) for name, count in sorted(self.zeros.items())}
        if self.skipped_now:
            self.record["skipped_frames"] = self.skipped_now
        self.begin_epoch()

    def add(self, losses: dict[str, float], images: int) -> None:
        """Add a step's losses, which are means over its images."""
        self.images += images
        self.steps += images > 0
        for name, value in losses.items():
            if images and value == 0:
                self.zeros[name] = self.zeros.get(name, 0) + 1
            self.sums[name] = self.sums.get(name, 0.0) + value * images

    def means(self) -> dict[str, float]:
        """Losses of this epoch, averaged over its images so far."""
        return {name: value / max(self.images, 1) for name, value in self.sums.items()}


def _is_new_record(record: Any) -> bool:
    """Whether it is one that ``finish_epoch`` makes."""
    groups = dict[str, float]
    needed = {"epoch": int, "lr": float, "losses": groups, "samples_per_second": float}
    hints = needed | {"zero_share": groups, "skipped_frames": int}
    known = isinstance(record, dict) and needed.keys() <= record.keys() <= hints.keys()
    return known and all(_fits(value, hints[name]) for name, value in record.items())


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a file has the type of a field; counts are not negative, all numbers of a sensible size."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (list, tuple):
        fits = isinstance(value, list) or (origin is tuple and isinstance(value, tuple))
        fits = fits and (origin is list or len(value) == len(arguments))
        return fits and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        names = isinstance(value, dict) and all(isinstance(name, str) and name.isprintable() for name in value)
        return names and all(_fits(item, arguments[1]) for item in value.values())
    if origin is types.UnionType:
        return any(_fits(value, argument) for argument in arguments)
    if hint is int:
        return type(value) is int and 0 <= value < 2**62
    if hint is float:
        return type(value) in (int, float) and -1e300 < value < 1e300
    return hint is Any or isinstance(value, hint)


class Pace:
    """How long the training of this process has taken, and will take at that speed, evaluations included."""

    def __init__(self, progress: Progress, epochs: int, interval: float = 300.0) -> None:
        """``interval``: time between two lines inside an epoch [s]."""
        self.started = self.logged = time.perf_counter()
        self.first, self.epochs, self.interval = progress.epochs_done, epochs, interval

    def describe(self, progress: Progress) -> str:
        """'elapsed 0:12:30, remaining 1:40:00'."""
        now, done = time.perf_counter(), progress.epochs_done - self.first
        elapsed = now - self.started
        remaining = elapsed / done * (self.epochs - progress.epochs_done) if done > 0 else 0.0
        times = {"elapsed": elapsed, "remaining": remaining}
        self.logged = now
        return ", ".join(f"{name} {timedelta(seconds=round(seconds))}" for name, seconds in times.items())

    def log_inside_epoch(self, progress: Progress, losses: str) -> None:
        """Write a line to train.log, which has no progress bar, if the last one is old enough."""
        if time.perf_counter() - self.logged >= self.interval:
            place = f"epoch {progress.epoch + 1}/{self.epochs}, frame {progress.frames_done} of {progress.order[1]}"
            logger.debug("%s  %s  %s", place, losses, self.describe(progress))


def epoch_summary(record: dict[str, Any], epochs: int) -> str:
    """One line about an epoch's metrics."""
    losses = " ".join(f"{name} {value:.4f}" for name, value in record["losses"].items())
    speed = f"{record['samples_per_second']:.2f} images/s"
    skipped = f"  {counted(record['skipped_frames'], 'frame')} skipped" if "skipped_frames" in record else ""
    return f"epoch {record['epoch']}/{epochs}  lr {record['lr']:.6f}  {losses}  {speed}{skipped}"
