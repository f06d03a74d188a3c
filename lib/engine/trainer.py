"""The training loop."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from tqdm import tqdm

from ..config import dump_config
from ..system.commands import progress_interval
from ..system.interruption import Interrupted
from .checkpoint import (
    load_model_state,
    load_optimizer_state,
    read_checkpoint,
    save_checkpoint,
    set_random_state,
)
from .metrics import MetricsLog
from .optimizer import learning_rate, set_learning_rate
from .progress import Progress
from .run_folder import LAST, list_checkpoints
from .step import Figures, Parts, compiled, prefetch, to_channels_last, train_step

logger = logging.getLogger(__name__)

Evaluate = Callable[[nn.Module, str], dict[str, float]]
"""(model, name of its results folder) -> AP by name, its first entry the one that decides which model is best"""
MAX_SKIPPED_SHARE = 0.01


def begin(parts: Parts, resume: Path | None) -> Progress:
    """Bring the model to its device and, to go on from a checkpoint, load weights, optimizer and place.

    Raises FileNotFoundError, or ValueError for a checkpoint that does not fit.
    """
    to_channels_last(parts.model, parts.device)
    order = (parts.config.general.random_seed, parts.frames)
    if resume is None:
        return Progress(order=order)
    state = read_checkpoint(resume)
    load_model_state(parts.model, state["model_state"], resume)
    load_optimizer_state(parts.optimizer, state.get("optimizer_state"), resume)
    progress = Progress.from_checkpoint(state, resume, order)
    if not parts.ranks.first:
        progress.skipped_now = 0  # counted by the first rank's checkpoint already
    last = parts.config.trainer.max_epoch
    if progress.epoch > last:
        raise ValueError(f"{resume}: {progress.epoch} epochs are done already, trainer.max_epoch={last}")
    if progress.epoch == last and progress.frames_done:
        raise ValueError(f"{resume}: it is inside epoch {last + 1} already, trainer.max_epoch={last}")
    if progress.frames_done:
        set_random_state(state["random_state"])
    if progress.epoch == last and progress.record is None:
        logger.info("%s: all %d epochs are done already", resume, last)
        return progress
    place = f" and {progress.frames_done} of {parts.frames} frames" if progress.frames_done else ""
    logger.info("resuming from %s after epoch %d%s", resume, progress.epoch, place)
    return progress


def train(parts: Parts, progress: Progress, evaluate: Evaluate) -> Path:
    """Train from ``progress`` (see :func:`begin`) to the last epoch; all files go to ``parts.run_dir``.

    Returns:
        the checkpoint of the last epoch.

    Raises:
        FloatingPointError: a loss was not finite; the message has the terms and the frame ids.
        Interrupted: a signal came; a checkpoint says how far the run has come.
    """
    trainer = parts.config.trainer
    forward = parts.ranks.wrap(parts.model, trainer.sync_bn)
    if trainer.compile:
        forward = compiled(forward)
    logged = progress.epoch - (progress.record is not None)
    with MetricsLog(parts.run_dir if parts.ranks.first else None, logged) as metrics:
        if progress.record is not None:  # killed between the last epoch's end and its evaluation's
            rate = learning_rate(progress.epoch - 1, parts.config.optimizer.lr, parts.config.lr_scheduler)
            set_learning_rate(parts.optimizer, rate)
            with parts.interruption.deferred():
                _save_epoch(parts, progress)
            _finish_epoch(parts, progress, evaluate, metrics)
        while progress.epoch < trainer.max_epoch:
            rate = learning_rate(progress.epoch, parts.config.optimizer.lr, parts.config.lr_scheduler)
            set_learning_rate(parts.optimizer, rate)
            with parts.interruption.deferred():
                train_one_epoch(parts, forward, progress)
                progress.finish_epoch(rate)
                logger.info(_summary(cast(dict[str, Any], progress.record), trainer.max_epoch))
                # before the evaluation, which must not cost the epoch if it fails
                _save_epoch(parts, progress)
                _stop_if_asked(parts)
            _finish_epoch(parts, progress, evaluate, metrics)
    final = parts.run_dir / "checkpoints" / f"checkpoint_epoch_{trainer.max_epoch}.pth"
    if not final.is_file():  # resumed from a finished run of elsewhere
        _save(parts, progress, final.name)
    parts.ranks.wait()
    return final


def train_one_epoch(parts: Parts, forward: nn.Module, progress: Progress) -> None:
    """One pass over the loader, or what ``progress`` says is left of it; adds every step to ``progress``.

    Raises Interrupted, after saving, between two steps.
    """
    if not progress.frames_done:
        # what is random from here on in code that extends this follows from seed and epoch
        torch.manual_seed(parts.config.general.random_seed + progress.epoch)
    batch_size, interval = parts.config.dataset.batch_size, parts.config.trainer.save_interval_minutes * 60
    sampler = cast(Any, parts.loader.batch_sampler)
    sampler.set_epoch(progress.epoch, progress.frames_done)
    parts.model.train()
    bar = tqdm(
        parts.loader,
        f"epoch {progress.epoch + 1}/{parts.config.trainer.max_epoch}",
        total=len(sampler),
        leave=False,
        unit="batch",
        dynamic_ncols=True,
        mininterval=progress_interval(),
        disable=not parts.ranks.first,
    )
    saved = now = time.perf_counter()
    ahead = prefetch(parts.device)
    pending: deque[Figures] = deque()
    stops: list[bool] = []  # by step: whether a process had been asked to stop
    with bar:
        for step, (images, targets, frames, skipped) in enumerate(bar):
            _note_skipped(parts, progress, skipped)
            pending.append(train_step(parts, forward, progress.epoch, images, targets, frames))
            # all ranks stop after the same step, whoever has read more because it saves
            stop_step, last = step - ahead, step + 1 == len(sampler)
            while pending and (last or len(stops) <= stop_step):
                stops.append(_book(progress, pending.popleft(), batch_size, parts.frames))
            before, now = now, time.perf_counter()
            progress.seconds += now - before
            stop = not last and stop_step >= 0 and stops[stop_step]
            due = not last and interval > 0 and now - saved >= interval
            while pending and (stop or due):
                stops.append(_book(progress, pending.popleft(), batch_size, parts.frames))
            bar.set_postfix_str(" ".join(f"{name} {mean:.3f}" for name, mean in progress.means().items()), False)
            if stop or due:
                _save(parts, progress, LAST)
                saved = now
            if stop:
                _stop(parts)
    _agree_on_skipped(parts, progress)


def _book(progress: Progress, figures: Figures, batch_size: int, frames: int) -> bool:
    """Add a step to ``progress``; returns whether a process was asked to stop."""
    losses, images, stop = figures.read()
    progress.add(losses, images)
    progress.frames_done = min(progress.frames_done + batch_size, frames)
    return stop


def _finish_epoch(parts: Parts, progress: Progress, evaluate: Evaluate, metrics: MetricsLog) -> None:
    """Evaluate, keep the best, log."""
    trainer, record = parts.config.trainer, cast(dict[str, Any], progress.record)
    due = progress.epoch % max(trainer.eval_frequency, 1) == 0 or progress.epoch == trainer.max_epoch
    evaluated = bool(trainer.eval_frequency) and due
    if evaluated:
        parts.ranks.share_buffers(parts.model)
        record = record | {"ap": evaluate(parts.model, f"checkpoint_epoch_{progress.epoch}")}
    with parts.interruption.deferred():
        if evaluated:
            _keep_best(parts, progress, record["ap"])
        metrics.write(record)
        progress.record = None
        if evaluated:  # else the last checkpoint would have it evaluated again
            _save(parts, progress, LAST)
        _stop_if_asked(parts)


def _keep_best(parts: Parts, progress: Progress, ap: dict[str, float]) -> None:
    """Save checkpoint_best.pth if the first AP is the best so far. NaN (no figure) is never best."""
    if not ap:
        return
    name, score = next(iter(ap.items()))
    if math.isnan(score) or (progress.best is not None and score <= progress.best):
        return
    progress.best = score
    path = _save(parts, progress, "checkpoint_best.pth")
    logger.info("best so far: %s %.2f -> %s", name, score, path)


def _save(parts: Parts, progress: Progress, name: str) -> Path:
    path = parts.run_dir / "checkpoints" / name
    if parts.ranks.first:
        config, state = dump_config(parts.config), progress.state()
        epoch, best = progress.epoch, progress.best
        save_checkpoint(path, parts.model, parts.optimizer, epoch, config, best, state, parts.focal_net)
    return path


def _save_epoch(parts: Parts, progress: Progress) -> None:
    """The last checkpoint, and where it is due that of the epoch that has just ended."""
    _save(parts, progress, LAST)
    trainer = parts.config.trainer
    if progress.epoch % trainer.save_frequency == 0 or progress.epoch == trainer.max_epoch:
        _save(parts, progress, f"checkpoint_epoch_{progress.epoch}.pth")
        if trainer.keep_last and parts.ranks.first:
            for path in list_checkpoints(parts.run_dir / "checkpoints")[: -trainer.keep_last]:
                path.unlink(missing_ok=True)


def _stop_if_asked(parts: Parts) -> None:
    """Raise Interrupted if any process got a signal; the checkpoint is written."""
    if parts.ranks.total(torch.tensor(int(parts.interruption.signum is not None))):
        _stop(parts)


def _stop(parts: Parts) -> None:
    parts.ranks.wait()  # torchrun takes the first process that ends for a failure, and ends the one that saves
    path = parts.run_dir / "checkpoints" / LAST
    signum = parts.interruption.signum or signal.SIGTERM  # else another process got it
    raise Interrupted(signum, f"saved as {path}; the same command with --resume goes on")


def _note_skipped(parts: Parts, progress: Progress, skipped: Sequence[Any]) -> None:
    """Count frames that could not be read; raises ValueError when they are too many."""
    for frame in skipped:
        progress.skipped_now += 1
        if frame.frame_id not in progress.skipped:
            progress.skipped.append(frame.frame_id)
            logger.warning("frame %s is skipped: %s", frame.frame_id, frame.reason)
    _refuse_too_many(parts, progress)


def _agree_on_skipped(parts: Parts, progress: Progress) -> None:
    """At an epoch's end: the first rank's checkpoint and log tell what all ranks have skipped."""
    found = parts.ranks.collect((progress.skipped, progress.skipped_now))
    if found:
        progress.skipped = sorted({frame_id for names, _ in found for frame_id in names})
        progress.skipped_now = sum(count for _, count in found)
        _refuse_too_many(parts, progress)


def _refuse_too_many(parts: Parts, progress: Progress) -> None:
    if len(progress.skipped) > MAX_SKIPPED_SHARE * parts.frames:
        raise ValueError(
            f"{len(progress.skipped)} of {parts.frames} training frames cannot be read, more than "
            f"{MAX_SKIPPED_SHARE:.0%}; the last is {progress.skipped[-1]}. tools/check_dataset.py lists them all"
        )


def _summary(record: dict[str, Any], epochs: int) -> str:
    losses = " ".join(f"{name} {value:.4f}" for name, value in record["losses"].items())
    speed = f"{record['samples_per_second']:.2f} images/s"
    skipped = f"  {record['skipped_frames']} frames skipped" if "skipped_frames" in record else ""
    return f"epoch {record['epoch']}/{epochs}  lr {record['lr']:.6f}  {losses}  {speed}{skipped}"
