"""Sections of tools/bench/gpu.py about the training loop itself, with its loader, on rendered frames."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.profiler import ProfilerActivity

from lib.config import dump_config
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import folder_for
from lib.datasets.samples import training_loader
from lib.engine.checkpoint import save_checkpoint
from lib.engine.optimizer import build_optimizer, learning_rate, set_learning_rate
from lib.engine.progress import Progress
from lib.engine.step import Parts, compiled
from lib.engine.trainer import begin, train_one_epoch
from lib.losses import Criterion
from lib.models import build_model
from tools.bench.gpu_job import NO_DEVICE, Job, attempt, not_measured, wait
from tools.bench.gpu_trace import Waiting, analyse, read_trace
from tools.bench.plain import synthetic_tree
from tools.bench.report import Row, make_row

EPOCHS, FRAMES = 140, 3712
"""of the published schedule, on KITTI's train split"""
MINUTES = 30.0
SHARE = 0.05
"""the most that may be spent waiting"""
BEFORE_PROFILE, WARM_UP = 2, 3
"""steps of an epoch that the profiler leaves out, and in which it gets ready"""


class Watched:
    """A loader that notes how long its user waits for each batch of an epoch."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.waits: list[float] = []
        self.after_batch: Callable[[], object] = lambda: None

    def __iter__(self) -> Iterator[Any]:
        self.waits = []
        start = time.perf_counter()
        for batch in self.loader:
            self.waits.append(time.perf_counter() - start)
            self.after_batch()
            yield batch
            start = time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


@dataclass(frozen=True)
class Run:
    """A training run whose loader is watched."""

    parts: Parts
    forward: nn.Module
    progress: Progress
    loader: Watched

    def epoch(self) -> float:
        """Train an epoch; returns its seconds."""
        config = self.parts.config
        rate = learning_rate(self.progress.epoch, config.optimizer.lr, config.lr_scheduler)
        set_learning_rate(self.parts.optimizer, rate)
        wait(self.parts.device)
        start = time.perf_counter()
        train_one_epoch(self.parts, self.forward, self.progress)
        wait(self.parts.device)
        seconds = time.perf_counter() - start
        self.progress.finish_epoch(rate)
        return seconds


def loop(job: Job, compile: bool = False) -> Iterator[Row]:
    """Seconds of an epoch, what it means for the whole schedule, and who waits for whom."""
    name = f"amp bf16{' + compile' if compile else ''}"
    if compile and not job.cuda:
        yield not_measured(f"epoch, {name}", NO_DEVICE)
        return
    root = repeated_frames(job)
    run = begin_run(job, root, compile)
    yield make_row(f"first epoch, {name}", run.epoch(), "s", note="decodes the images; cuDNN and torch get ready")
    yield from epochs(job, run, name)
    yield from attempt(job, f"profile, {name}", lambda: profile(job, run, name))


def compiled_loop(job: Job) -> Iterator[Row]:
    """The same with ``trainer.compile``."""
    yield from loop(job, compile=True)


def repeated_frames(job: Job) -> Path:
    """A tree with every rendered frame under several names."""
    root = synthetic_tree(job.folder, job.sizes.frames)
    training = root / "training"
    first = (root / "ImageSets" / "train.txt").read_text().split()[: job.sizes.frames]
    names = [f"{100000 * copy + int(frame):06d}" for copy in range(job.sizes.copies) for frame in first]
    for name in names:
        for folder, suffix in (("image_2", ".png"), ("calib", ".txt"), ("label_2", ".txt")):
            target = training / folder / f"{name}{suffix}"
            if not target.exists():
                target.symlink_to(f"{int(name) % 100000:06d}{suffix}")
    (root / "ImageSets" / "trainval.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def begin_run(job: Job, root: Path, compile: bool) -> Run:
    """As tools/train_val.py puts it together."""
    config = job.config(job.sizes.batches[0], amp=True, compile=compile)
    depth_folder = folder_for(config.dataset.writelist)
    frames = KITTI(root, "trainval", depth_folder, paint_obj_depth=True, cache=True)
    device = job.begin()
    torch.manual_seed(0)
    model = build_model(config)
    optimizer = build_optimizer(model, config.optimizer, fused=device.type == "cuda")
    loader = Watched(training_loader(frames, config))
    parts = Parts(model, Criterion(config.general), optimizer, cast(Any, loader), device, config, job.folder)
    progress = begin(parts, None)
    return Run(parts, compiled(model) if compile else model, progress, loader)


def epochs(job: Job, run: Run, name: str) -> Iterator[Row]:
    """Epochs without a profiler."""
    seconds, first, later = [], [], []
    for _ in range(job.sizes.epochs):
        seconds.append(run.epoch())
        first.append(run.loader.waits[0])
        later.append(sum(run.loader.waits[1:]) / (seconds[-1] - first[-1]))
    frames, batch, epoch = run.parts.frames, run.parts.config.dataset.batch_size, statistics.median(seconds)
    how = f"{frames} frames, batch {batch}, {job.sizes.workers} loaders"
    facts: dict[str, Any] = {"samples_per_second": frames / epoch, "all": seconds}
    yield make_row(f"epoch, {name}", epoch, "s", note=how, **facts)
    yield make_row(f"waiting for an epoch's first batch, {name}", 1000 * statistics.median(first), "ms")
    yield share(job, f"waiting for the loader, {name}", statistics.median(later), "after an epoch's first batch")
    saving = statistics.median(_save(run) for _ in range(3))
    yield make_row(f"checkpoint, {name}", saving, "s")
    minutes = EPOCHS * (epoch * FRAMES / frames + saving) / 60
    note = (
        f"extrapolated: time per frame and a checkpoint an epoch as above, images cached, {EPOCHS * FRAMES} frames; "
        "without start, first decoding and evaluation"
    )
    yield make_row(f"{EPOCHS} epochs, {name}", minutes, "min", MINUTES / minutes, job.bar(1.0), note=note)


def _save(run: Run) -> float:
    start = time.perf_counter()
    path = run.parts.run_dir / "checkpoint.pth"
    save_checkpoint(path, run.parts.model, run.parts.optimizer, 0, dump_config(run.parts.config), None)
    return time.perf_counter() - start


def profile(job: Job, run: Run, name: str) -> list[Row]:
    """An epoch under the profiler: idle times, waiting, dearest kernels."""
    if not job.cuda:
        return [not_measured(f"profile, {name}", NO_DEVICE)]
    # kernels take as long under a profiler, but the host is slower; so a step's time is taken without one, and before
    wall = statistics.median(_steady_step(run) for _ in range(2))
    steps = max(1, min(job.sizes.profiled, len(run.loader.waits) - BEFORE_PROFILE - WARM_UP - 1))
    try:
        # without the CPU's side, which would slow the host down
        waiting = _traced(run, steps, [ProfilerActivity.CUDA])
    except ValueError as error:
        print(f"{error}; once more with the CPU's side")
        waiting = _traced(run, steps, [ProfilerActivity.CPU, ProfilerActivity.CUDA])
    busy = waiting.busy_per_step / 1e6
    rows = [
        share(job, f"GPU idle, {name}", max(0.0, 1 - busy / wall), "busy time of the profile, step without profiler"),
        make_row(f"GPU idle under the profiler, {name}", 100 * waiting.idle, "%"),
    ]
    rows += [share(job, f"host in {kind}, {name}", part) for kind, part in waiting.waits.items()]
    rows.append(share(job, f"host in any of these while the GPU is idle, {name}", waiting.waits_while_idle))
    facts: dict[str, Any] = {"launches": waiting.launches_per_step, "kernels": waiting.kernels}
    return [*rows, make_row(f"GPU busy in a step, {name}", 1000 * busy, "ms", step_milliseconds=1000 * wall, **facts)]


def _steady_step(run: Run) -> float:
    """Seconds of a step of an epoch, after its first batch has come."""
    seconds = run.epoch()
    return (seconds - run.loader.waits[0]) / len(run.loader.waits)


def _traced(run: Run, steps: int, activities: list[ProfilerActivity]) -> Waiting:
    path = run.parts.run_dir / "trace.json"
    path.unlink(missing_ok=True)
    plan = torch.profiler.schedule(wait=BEFORE_PROFILE, warmup=WARM_UP, active=steps, repeat=1)

    def save(profiler: torch.profiler.profile) -> None:
        profiler.export_chrome_trace(str(path))

    with torch.profiler.profile(activities=activities, schedule=plan, on_trace_ready=save) as profiler:
        run.loader.after_batch = profiler.step
        try:
            run.epoch()
        finally:
            run.loader.after_batch = lambda: None
    return analyse(read_trace(path), steps)


def share(job: Job, name: str, part: float, note: str = "") -> Row:
    """A share of the time, of which at most :data:`SHARE` is good."""
    ratio = min(SHARE / max(part, 1e-6), 1000.0)
    return make_row(name, 100 * part, "%", ratio, job.bar(1.0), note=note)
