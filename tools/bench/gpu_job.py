"""What the sections of tools/bench/gpu.py share: their order, their rows, their clocks, and a GPU left as it was."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lib.config import Config, Dataset, General, Model, Optimizer, Trainer
from lib.engine.device import choose_device
from tools.bench.report import Row, make_row

NO_DEVICE = "not measured: no CUDA device"
OUT_OF_TIME = "not measured: out of time"


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    backbone: str = "dla34"
    resolution: tuple[int, int] = (1280, 384)
    product: int = 8192
    """rows and columns of the matrices"""
    batches: tuple[int, ...] = (16, 32, 64)
    """of training; the first one is what the bars are about"""
    images: tuple[int, ...] = (1, 8, 32, 64)
    """batches of inference"""
    steps: int = 12
    """timed, of training and of inference in batches; the median counts"""
    calls: int = 100
    """timed, of inference on one image"""
    frames: int = 96
    """rendered for the training loop"""
    copies: int = 6
    """of each, under names of their own: an epoch's frames are ``frames * copies``"""
    epochs: int = 4
    """timed, after the first"""
    profiled: int = 20
    """steps"""
    workers: int = 8
    """loader processes"""


FULL = Sizes()
QUICK = Sizes(
    backbone="dla34_narrow",
    resolution=(96, 64),
    batches=(2,),
    images=(1, 2),
    steps=2,
    calls=3,
    frames=4,
    copies=6,
    epochs=1,
    workers=1,
)


@dataclass(frozen=True)
class Job:
    """What a section is told."""

    device_type: str
    """'cuda' or 'cpu'"""
    quick: bool
    folder: Path
    """for rendered frames and the like"""
    until: float
    """``time.time()`` at which the section is stopped"""

    @property
    def cuda(self) -> bool:
        return self.device_type == "cuda"

    @property
    def sizes(self) -> Sizes:
        return QUICK if self.quick else FULL

    def bar(self, value: float) -> float | None:
        """The bars are about a GPU and the full size."""
        return value if self.cuda and not self.quick else None

    def seconds_left(self) -> float:
        return self.until - time.time()

    def begin(self) -> torch.device:
        """The device; this is the first time that a section touches it."""
        return choose_device([0] if self.cuda else [])

    def config(self, batch: int, amp: bool = False, compile: bool = False) -> Config:
        """Both extra losses; everything else as published, but for a learning rate at which no loss can diverge."""
        return Config(
            general=General(qi=True, obj_depth=True),
            dataset=Dataset(
                resolution=self.sizes.resolution,
                batch_size=batch,
                num_workers=self.sizes.workers,
                cache="ram",
                obj_depth_source="labels",
            ),
            model=Model(backbone=self.sizes.backbone, pretrained=False),
            optimizer=Optimizer(lr=1e-6),
            trainer=Trainer(amp="bf16" if amp else False, compile=compile, gpu_ids=(0,) if self.cuda else ()),
        )


def not_measured(name: str, note: str) -> Row:
    """``note``: why."""
    return make_row(name, None, note=note)


def failure(name: str, reason: str | Exception) -> Row:
    """A row that makes the script's exit status 1."""
    if isinstance(reason, Exception):
        reason = f"{type(reason).__name__}: {' '.join(str(reason).split())[:300]}"
    return make_row(name, None, note=f"failed: {reason}", failed=True)


def attempt(job: Job, name: str, measure: Callable[[], list[Row]], seconds: float = 10) -> list[Row]:
    """What ``measure`` finds, or a row that says why it found nothing; frees the memory that it took.

    ``seconds``: it is not begun where less time is left.
    """
    if job.seconds_left() < seconds:
        return [not_measured(name, OUT_OF_TIME)]
    try:
        rows = measure()
    except torch.cuda.OutOfMemoryError:
        rows = [not_measured(name, "out of memory")]
    except Exception as error:  # whatever it is, it must not cost the other rows
        traceback.print_exc()
        rows = [failure(name, error)]
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if job.cuda:
        with contextlib.suppress(RuntimeError):  # after some errors no call succeeds
            torch.cuda.empty_cache()
    return rows


@contextlib.contextmanager
def precision(tf32: bool, benchmark: bool = False) -> Iterator[None]:
    """Float32 convolutions in TF32, which is torch's default, or in true float32. Products are never in TF32, which is
    torch's default too. ``benchmark``: cuDNN tries its algorithms and keeps the fastest.
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, benchmark
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_in_a_row(run: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of ``repeats`` calls, the next one put in the GPU's queue while it works on the last one."""
    if device.type == "cpu":
        return seconds_one_by_one(run, repeats, device)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(marks)]


def seconds_one_by_one(run: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of ``repeats`` calls, from the call until the device is done."""
    seconds = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def allocated_megabytes(job: Job, peak: bool = False) -> float:
    """What tensors take on the GPU now, or at most since ``torch.cuda.reset_peak_memory_stats``; 0 on the CPU."""
    if not job.cuda:
        return 0.0
    return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 1e6
