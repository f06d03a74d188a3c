"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

from lib.config import Config, dump_config
from lib.engine.checkpoint import load_model_state, load_optimizer_state, read_checkpoint, save_checkpoint
from lib.engine.metrics import MetricsLog
from lib.engine.optim import learning_rate, set_learning_rate
from lib.engine.runtime import progress_interval
from lib.structures import FrameInfo

logger = logging.getLogger(__name__)

Criterion = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]
Evaluate = Callable[[nn.Module, str], dict[str, float]]
"""(model, name of its results folder) -> AP by name, its first entry the one that decides which model is best"""


@dataclass(frozen=True)
class Parts:
    """What one run is made of."""

    model: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    loader: DataLoader[Any]
    """its sampler has ``set_epoch``"""
    device: torch.device
    config: Config


@dataclass(frozen=True)
class Start:
    """Where training begins."""

    epoch: int = 0
    """epochs done already"""
    best: float | None = None
    """best AP so far [%]"""


def begin(parts: Parts, resume: Path | None) -> Start:
    """Bring the model to its device and, to go on from a checkpoint, load weights and optimizer.

    Raises FileNotFoundError, or ValueError for a checkpoint that does not fit or has nothing left to do.
    """
    parts.model.to(parts.device)
    if resume is None:
        return Start()
    state = read_checkpoint(resume)
    load_model_state(parts.model, state["model_state"], resume)
    load_optimizer_state(parts.optimizer, state.get("optimizer_state"), resume)
    done, last = state.get("epoch"), parts.config.trainer.max_epoch
    if not isinstance(done, int):
        raise ValueError(f"{resume}: no epoch in this checkpoint; use trainer.pretrain_model to start from its weights")
    if done >= last:
        raise ValueError(f"{resume}: {done} epochs are done already, trainer.max_epoch={last}")
    logger.info("resuming from %s after epoch %d", resume, done)
    return Start(done, state.get("best"))


def train(parts: Parts, run_dir: Path, start: Start, evaluate: Evaluate) -> Path:
    """Train from ``start`` (see :func:`begin`) to the last epoch; all files go to ``run_dir``.

    Returns:
        the checkpoint of the last epoch.

    Raises:
        FloatingPointError: a loss was not finite; the message has the terms and the frame ids.
    """
    trainer, checkpoints = parts.config.trainer, run_dir / "checkpoints"
    best = start.best
    with MetricsLog(run_dir, start.epoch) as metrics:
        for epoch in range(start.epoch, trainer.max_epoch):
            rate = learning_rate(epoch, parts.config.optimizer.lr, parts.config.lr_scheduler)
            set_learning_rate(parts.optimizer, rate)
            began = time.perf_counter()
            losses, pictures = train_one_epoch(parts, epoch)
            speed = pictures / (time.perf_counter() - began)
            last = epoch + 1 == trainer.max_epoch
            record: dict[str, Any] = {"epoch": epoch + 1, "lr": rate, "losses": losses, "samples_per_second": speed}
            logger.info(_summary(record, trainer.max_epoch))
            name = f"checkpoint_epoch_{epoch + 1}"
            saved = (epoch + 1) % trainer.save_frequency == 0 or last
            if saved:  # before the evaluation, which must not cost the epoch if it fails
                _save(parts, checkpoints / f"{name}.pth", epoch + 1, best)
            if trainer.eval_frequency and ((epoch + 1) % trainer.eval_frequency == 0 or last):
                record["ap"] = evaluate(parts.model, name)
                best, before = _keep_best(parts, checkpoints, epoch + 1, record["ap"], best), best
                if saved and best != before:
                    _save(parts, checkpoints / f"{name}.pth", epoch + 1, best)
            # after the checkpoint: a resumed run cuts the log back to the epochs that its checkpoint has
            metrics.write(record)
    return checkpoints / f"checkpoint_epoch_{trainer.max_epoch}.pth"


def train_one_epoch(parts: Parts, epoch: int) -> tuple[dict[str, float], int]:
    """One pass over the loader.

    Returns:
        mean of every loss term, and of their sum as 'total', over the pictures; and how many pictures there were.
    """
    # all that is random from here on (colour jitter) follows from seed and epoch, so that resuming changes nothing
    torch.manual_seed(parts.config.general.random_seed + epoch)
    cast(Any, parts.loader.sampler).set_epoch(epoch)
    parts.model.train()
    sums: dict[str, float] = {}
    pictures = 0
    description = f"epoch {epoch + 1}/{parts.config.trainer.max_epoch}"
    bar = tqdm(
        parts.loader, description, leave=False, unit="batch", dynamic_ncols=True, mininterval=progress_interval()
    )
    with bar:
        for images, targets, frames in bar:
            losses = train_step(parts, images, targets, frames)
            pictures += len(frames)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * len(frames)
            bar.set_postfix_str(" ".join(f"{name} {total / pictures:.3f}" for name, total in sums.items()), False)
    return {name: total / pictures for name, total in sums.items()}, pictures


def train_step(
    parts: Parts, images: Tensor, targets: dict[str, Tensor], frames: Sequence[FrameInfo]
) -> dict[str, float]:
    """Forward, backward, step on one batch. Returns the terms and their 'total'; raises FloatingPointError."""
    device, config = parts.device, parts.config
    images = images.to(device, non_blocking=True)
    targets = {name: value.to(device, non_blocking=True) for name, value in targets.items()}
    if config.dataset.color_jitter:
        jitter = v2.ColorJitter(*config.dataset.color_jitter)
        images = torch.stack([jitter(image) for image in images])
    with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.amp == "bf16"):
        outputs = parts.model(images, targets["indices"])
    terms = parts.criterion(outputs, targets)
    total = torch.stack(list(terms.values())).sum()
    values = dict(zip([*terms, "total"], torch.stack([*terms.values(), total]).tolist(), strict=True))
    if not math.isfinite(values["total"]):
        shown = ", ".join(f"{name}={value:g}" for name, value in values.items())
        raise FloatingPointError(
            f"the loss is not finite: {shown}; frames {', '.join(f.frame_id for f in frames)}; "
            "the weights are those before this step. Lower optimizer.lr, or look at these frames' labels"
        )
    parts.optimizer.zero_grad(set_to_none=True)
    total.backward()
    parts.optimizer.step()
    return values


def _keep_best(parts: Parts, folder: Path, epoch: int, ap: dict[str, float], best: float | None) -> float | None:
    """Save checkpoint_best.pth if the first AP is the best so far; returns the best. NaN (no figure) is never best."""
    if not ap:
        return best
    name, score = next(iter(ap.items()))
    if math.isnan(score) or (best is not None and score <= best):
        return best
    path = folder / "checkpoint_best.pth"
    _save(parts, path, epoch, score)
    logger.info("best so far: %s %.2f -> %s", name, score, path)
    return score


def _save(parts: Parts, path: Path, epoch: int, best: float | None) -> None:
    save_checkpoint(path, parts.model, parts.optimizer, epoch, dump_config(parts.config), best)


def _summary(record: dict[str, Any], epochs: int) -> str:
    losses = " ".join(f"{name} {value:.4f}" for name, value in record["losses"].items())
    speed = f"{record['samples_per_second']:.2f} pictures/s"
    return f"epoch {record['epoch']}/{epochs}  lr {record['lr']:.6f}  {losses}  {speed}"
