"""The training of one run: a step, an epoch, all epochs."""

import copy
import logging
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..config import Config, dump_config
from ..system.commands import show_progress
from ..system.files import link_file
from ..system.interruption import Interrupted, Interruption
from .checkpoint import (
    WITHOUT_EMA,
    load_model_state,
    load_optimizer_state,
    read_checkpoint,
    save_checkpoint,
    set_random_state,
)
from .device import describe_memory
from .distributed import ProcessGroup
from .metrics import MetricsLog
from .optimizer import learning_rate, set_learning_rate, update_average
from .progress import Pace, Progress, epoch_summary
from .run_folder import LAST, list_checkpoints
from .skipped import SkippedFrames
from .step import CompiledForward, StepLosses, add_gradients, jitter_colors, steps_in_flight, to_channels_last

logger = logging.getLogger(__name__)

Criterion = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]
"""(outputs, targets) -> losses by name, already weighted"""
Evaluate = Callable[[nn.Module, str], dict[str, float]]
"""(model, name of its results folder) -> AP by name; the first one decides which checkpoint is best"""


class Trainer:
    """Trains ``model`` with what is passed in, and writes checkpoints and metrics to ``run_dir``.

    Args:
        loader: batches (images, targets, frames, skipped); its ``batch_sampler`` has ``set_epoch(epoch, frames_done)``.
        evaluate: called after every ``trainer.eval_frequency`` epochs.
        focal_net: median focal length of the training frames at network resolution [px], stored in checkpoints.

    ``step``, ``train_epoch`` and ``fit`` raise FloatingPointError for a loss that is not finite, ValueError where more
    than 1 % of the frames cannot be read, and Interrupted after a signal, when the checkpoint is written.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        loader: DataLoader[Any],
        config: Config,
        run_dir: Path,
        device: torch.device,
        evaluate: Evaluate,
        ranks: ProcessGroup | None = None,
        interruption: Interruption | None = None,
        focal_net: float | None = None,
    ) -> None:
        to_channels_last(model, device)
        self.model, self.criterion, self.optimizer, self.loader = model, criterion, optimizer, loader
        self.config, self.run_dir, self.device, self.evaluate = config, run_dir, device, evaluate
        self.ranks, self.interruption = ranks or ProcessGroup(), interruption or Interruption()
        self.focal_net = focal_net
        forward = self.ranks.wrap(model, config.trainer.sync_bn)
        self.wrapped, self.forward = forward, CompiledForward(forward) if config.trainer.compile else forward
        self.evaluated_model = copy.deepcopy(model) if config.trainer.ema else model
        self.n_frames = len(cast(Any, loader.dataset))
        # with several ranks all stop together, after a step that has all their batches
        cast(Any, loader).asked_to_stop = lambda: self.ranks.size == 1 and self.interruption.signum is not None
        self._saved_at = 0.0  # time of the last checkpoint, by time.perf_counter
        self.progress = Progress(order=(config.general.random_seed, self.n_frames))
        self.pace = Pace(self.progress, config.trainer.max_epoch)
        self.skipped = SkippedFrames(self.n_frames, self.ranks)

    def synchronized_model(self) -> nn.Module:
        """The evaluated model; all ranks get the BatchNorm statistics of rank 0, which checkpoints hold."""
        for model in dict.fromkeys((self.model, self.evaluated_model)):
            self.ranks.broadcast_buffers(model)
        return self.evaluated_model

    def resume(self, path: Path) -> None:
        """Load weights, optimizer state and progress. Raises FileNotFoundError, or ValueError where they do not fit."""
        state, last = read_checkpoint(path), self.config.trainer.max_epoch
        load_model_state(self.evaluated_model, state["model_state"], path)
        load_model_state(self.model, state.get(WITHOUT_EMA, state["model_state"]), path)
        load_optimizer_state(self.optimizer, state.get("optimizer_state"), path)
        progress = self.progress = Progress.from_checkpoint(state, path, self.progress.order)
        if not self.ranks.is_main:
            progress.skipped_now = 0  # the main rank's checkpoint has the sum of all ranks
        if progress.epoch > last:
            raise ValueError(f"{path}: {progress.epoch} epochs are done already, trainer.max_epoch={last}")
        if progress.epoch == last and progress.frames_done:
            raise ValueError(f"{path}: it is inside epoch {last + 1} already, trainer.max_epoch={last}")
        if progress.frames_done:
            set_random_state(state.get("random_state"), path)
        if progress.epoch == last and progress.record is None:
            logger.info("%s: all %d epochs are done already", path, last)
            return
        place = f" and {progress.frames_done} of {self.n_frames} frames" if progress.frames_done else ""
        logger.info("resuming from %s after epoch %d%s", path, progress.epoch, place)

    def fit(self) -> Path:
        """Train until ``trainer.max_epoch``. Returns the path of the last epoch's checkpoint."""
        progress, max_epoch = self.progress, self.config.trainer.max_epoch
        self.pace, logged = Pace(progress, max_epoch), progress.epoch - (progress.record is not None)
        with MetricsLog(self.run_dir if self.ranks.is_main else None, logged) as metrics:
            if progress.record is not None:  # the run was killed after an epoch, before its evaluation was complete
                self._set_learning_rate(progress.epoch - 1)
                with self.interruption.deferred():
                    self._save_epoch()
                self._finish_epoch(metrics)
            while progress.epoch < max_epoch:
                rate = self._set_learning_rate(progress.epoch)
                with self.interruption.deferred():
                    self.train_epoch()
                    progress.finish_epoch(rate)
                    summary = epoch_summary(cast(dict[str, Any], progress.record), max_epoch)
                    logger.info("%s  %s%s", summary, self.pace.describe(progress), describe_memory(self.device))
                    self._save_epoch()  # before the evaluation: if that fails, the epoch is not lost
                    self._stop_if_asked()
                self._finish_epoch(metrics)
        final = self.run_dir / "checkpoints" / f"checkpoint_epoch_{max_epoch}.pth"
        if not final.is_file():  # resumed from another run's last checkpoint
            self.save(final.name)
        self.ranks.barrier()
        return final

    def train_epoch(self) -> None:
        """One pass over the loader, or over the frames of the epoch that are left; adds to ``progress``."""
        progress = self.progress
        if not progress.frames_done:
            # random draws of code that extends this project then follow from seed and epoch
            torch.manual_seed(self.config.general.random_seed + progress.epoch)
        sampler = cast(Any, self.loader.batch_sampler)
        sampler.set_epoch(progress.epoch, progress.frames_done)
        self.model.train()
        queue: deque[StepLosses] = deque()
        flags: list[tuple[bool, bool]] = []  # by step, equal on all ranks: whether to stop, whether to save
        self._saved_at = now = time.perf_counter()
        with self._progress_bar(len(sampler)) as bar:
            for number, (images, targets, frames, skipped) in enumerate(self._saving_on_failure(bar, queue)):
                last, oldest = number + 1 == len(sampler), number - steps_in_flight(self.device)
                self.skipped.record(skipped, progress)
                queue.append(self.step(images, targets, frames))
                while queue and (last or len(flags) <= oldest):
                    flags.append(self.record_step(queue.popleft()))
                before, now = now, time.perf_counter()
                progress.seconds += now - before
                # of the same step on every rank, so that all stop and save together
                stop, save = flags[oldest] if not last and oldest >= 0 else (False, False)
                while queue and (stop or save):
                    flags.append(self.record_step(queue.popleft()))
                losses = " ".join(f"{name} {mean:.3f}" for name, mean in progress.means().items())
                bar.set_postfix_str(losses, False)
                self.pace.log_inside_epoch(progress, losses)
                if stop or save:
                    self.skipped.merge(progress)
                    self.save(LAST)
                    self._saved_at = time.perf_counter()
                    flags[-1] = (False, False)  # of a step in flight: as due as the one that led here
                if stop:
                    self._stop()
        self.skipped.merge(progress)

    def _saving_on_failure(self, bar: "tqdm[Any]", queue: deque[StepLosses]) -> Iterator[Any]:
        """The batches. Where the loader fails, the steps that are done are saved first, if this is the main rank."""
        try:
            yield from bar
        except Exception:
            while queue:
                self.record_step(queue.popleft())
            path = self.save(LAST)
            if self.interruption.signum is not None and self.ranks.size == 1:
                self._stop()
            logger.info("saved as %s; the same command with --resume continues there", path)
            raise

    def _is_due(self) -> bool:
        """Whether the main rank's last checkpoint is old enough for another one inside the epoch."""
        interval = 60 * self.config.trainer.save_interval_minutes
        return self.ranks.is_main and 0 < interval <= time.perf_counter() - self._saved_at

    def step(self, images: Tensor, targets: dict[str, Tensor], frames: Sequence[Any]) -> StepLosses:
        """Forward, backward and optimizer step on a batch, or on this rank's share of it. Does not wait for a GPU.

        ``images`` (B, 3, H, W) uint8; ``targets`` by name, (B, ..); ``frames``: FrameInfo of each image.
        """
        config, device = self.config, self.device
        images = images.to(device, non_blocking=True)
        targets = {name: value.to(device, non_blocking=True) for name, value in targets.items()}
        if config.dataset.color_jitter:
            seed, epoch = config.general.random_seed, self.progress.epoch
            images = jitter_colors(images, config.dataset.color_jitter, seed, epoch, frames)
        self.optimizer.zero_grad(set_to_none=True)
        parts, local = config.trainer.accumulate, partial(self.ranks.keep_gradients_local, self.wrapped)
        losses = add_gradients(self._compute_losses, images, targets, parts, self.ranks.sum_integers, local)
        if config.optimizer.clip_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_grad_norm)
        # transferred with the losses, so that all ranks stop or save after the same step
        counts = [len(frames), self.interruption.signum is not None, self._is_due()]
        step_losses = StepLosses(losses, counts, self.ranks.all_reduce_sum, frames)
        self.optimizer.step()
        if config.trainer.ema:
            update_average(self.evaluated_model, self.model, config.trainer.ema)
        return step_losses

    def _compute_losses(self, images: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.trainer.amp == "bf16"):
            outputs = self.forward(images, targets["indices"])
        return self.criterion(outputs, targets)

    def record_step(self, step_losses: StepLosses) -> tuple[bool, bool]:
        """Add a step's losses to ``progress``; returns whether a rank was asked to stop, and whether to save."""
        losses, images, stop, due = step_losses.read()
        self.progress.add(losses, images)
        done = self.progress.frames_done + self.config.dataset.batch_size
        self.progress.frames_done = min(done, self.n_frames)
        return stop, due

    def save(self, name: str) -> Path:
        """Write a checkpoint (on the main rank only); returns its path."""
        path, progress = self.run_dir / "checkpoints" / name, self.progress
        if self.ranks.is_main:
            config, without_ema = dump_config(self.config), self.model if self.config.trainer.ema else None
            values = (progress.epoch, config, progress.best, progress.state(), self.focal_net, without_ema)
            save_checkpoint(path, self.evaluated_model, self.optimizer, *values)
        return path

    def _save_epoch(self, same: Path | None = None) -> None:
        """Write this epoch's checkpoint, unless it is ``same``, as checkpoint_epoch_N.pth, if due, and then as LAST."""
        epoch, config = self.progress.epoch, self.config.trainer
        due = epoch % config.save_frequency == 0 or epoch == config.max_epoch
        names = [f"checkpoint_epoch_{epoch}.pth"] * due + [LAST]
        path = same or self.save(names[0])
        for name in names if self.ranks.is_main else ():
            link_file(path, path.with_name(name))
        if due and config.keep_last and self.ranks.is_main:
            for old in list_checkpoints(path.parent)[: -config.keep_last]:
                old.unlink(missing_ok=True)

    def _finish_epoch(self, metrics: MetricsLog) -> None:
        """Evaluate if it is due, keep the best checkpoint, write the epoch to the metrics."""
        progress, config = self.progress, self.config.trainer
        record, frequency = cast(dict[str, Any], progress.record), config.eval_frequency
        evaluated = frequency > 0 and (progress.epoch % frequency == 0 or progress.epoch == config.max_epoch)
        if evaluated:
            record = record | {"ap": self.evaluate(self.synchronized_model(), f"checkpoint_epoch_{progress.epoch}")}
        with self.interruption.deferred():
            progress.record = None
            best = self._keep_best(record["ap"]) if evaluated else None
            metrics.write(record)
            if evaluated:  # else a resumed run would evaluate this epoch again
                self._save_epoch(best)
            self._stop_if_asked()

    def _keep_best(self, ap: dict[str, float]) -> Path | None:
        """Save checkpoint_best.pth if the first AP is the best so far; returns its path. NaN is never the best."""
        name, score = next(iter(ap.items()), ("", math.nan))
        if name and math.isnan(score):
            logger.info("checkpoint_best.pth is not written: there is no %s in this evaluation", name)
        if math.isnan(score) or (self.progress.best is not None and score <= self.progress.best):
            return None
        self.progress.best = score
        logger.info("best so far: %s %.2f: checkpoint_best.pth", name, score)
        return self.save("checkpoint_best.pth")

    def _set_learning_rate(self, epoch: int) -> float:
        rate = learning_rate(epoch, self.config.optimizer.lr, self.config.lr_scheduler, self.config.trainer.max_epoch)
        set_learning_rate(self.optimizer, rate)
        return rate

    def _progress_bar(self, steps: int) -> "tqdm[Any]":
        title = f"epoch {self.progress.epoch + 1}/{self.config.trainer.max_epoch}"
        options = {"leave": False, "dynamic_ncols": True, "disable": not self.ranks.is_main}
        return show_progress(self.loader, title, steps, "batch", **options)

    def _stop_if_asked(self) -> None:
        """Raise Interrupted if any rank got a signal; the checkpoint is already written."""
        if self.ranks.all_reduce_sum(torch.tensor(int(self.interruption.signum is not None))):
            self._stop()

    def _stop(self) -> None:
        self.ranks.barrier()  # torchrun ends all ranks when the first one exits: wait until rank 0 has saved
        path, signum = self.run_dir / "checkpoints" / LAST, self.interruption.signum or signal.SIGTERM  # another's
        raise Interrupted(signum, f"saved as {path}; continue with the same command and --resume")
