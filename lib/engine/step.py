"""One step of training, on a batch or on a process's share of one."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..config import Config
from ..structures import FrameInfo
from ..system.interruption import Interruption
from .distributed import Ranks

Criterion = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Parts:
    """What one run is made of."""

    model: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    loader: DataLoader[Any]
    """its batch sampler has ``set_epoch``"""
    device: torch.device
    config: Config
    run_dir: Path
    ranks: Ranks = field(default_factory=Ranks)
    interruption: Interruption = field(default_factory=Interruption)
    focal_net: float | None = None
    """median focal length of the training frames at network resolution [px]"""

    @property
    def frames(self) -> int:
        """of the training split"""
        return len(cast(Any, self.loader.dataset))


def to_channels_last(model: nn.Module, device: torch.device) -> None:
    """Bring ``model`` to ``device``, in the memory format that convolutions are fastest in."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def compiled(forward: nn.Module) -> nn.Module:
    """``forward``, compiled for each shape that it meets: an epoch's batches, and its last one. It shares its state.

    Calling it raises ValueError where the machine lacks what compiling needs.
    """
    fast = cast(nn.Module, torch.compile(forward, dynamic=False))
    return _Compiled(forward, fast)


class _Compiled(nn.Module):
    def __init__(self, eager: nn.Module, fast: nn.Module) -> None:
        super().__init__()
        self.eager, self.fast = eager, fast

    def forward(self, images: Tensor, indices: Tensor) -> Any:
        if not len(images):  # a share without images: not worth a compilation
            return self.eager(images, indices)
        try:
            return self.fast(images, indices)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).partition("\n")[0]
            raise ValueError(f"trainer.compile: {reason}; mend that, or set trainer.compile to false") from error


def prefetch(device: torch.device) -> int:
    """How many steps the host may be ahead of the figures that it has read.

    A GPU that has to wait until its figures are read, and the next step is put in its queue, idles meanwhile. On the
    CPU there is nothing to gain.
    """
    return 1 if device.type == "cuda" else 0


class Figures:
    """What a step has to tell the host: on its way from the device until it is read."""

    def __init__(self, terms: dict[str, Tensor], counts: Tensor, frames: Sequence[FrameInfo]) -> None:
        """``terms``: scalars, their 'total' among them. ``counts`` (2,): images, and how many ranks are to stop."""
        self.names, self.frames = list(terms), frames
        numbers = torch.cat([torch.stack(list(terms.values())), counts]).detach()
        self.arrived: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self.numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self.numbers.copy_(numbers, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()
        else:
            self.numbers = numbers

    def read(self) -> tuple[dict[str, float], int, bool]:
        """Wait until they are there.

        Returns:
            the whole batch's terms and their 'total'; its number of images; whether a process was asked to stop.

        Raises FloatingPointError where the loss is not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        *numbers, images, stop = self.numbers.tolist()
        values = dict(zip(self.names, numbers, strict=True))
        if not math.isfinite(values["total"]):
            shown = ", ".join(f"{name}={value:g}" for name, value in values.items())
            raise FloatingPointError(
                f"the loss is not finite: {shown}; frames {', '.join(f.frame_id for f in self.frames)}; "
                "nothing of this step is saved. Lower optimizer.lr, or look at these frames' labels"
            )
        return values, round(images), stop > 0


def train_step(
    parts: Parts,
    forward: nn.Module,
    epoch: int,
    images: Tensor,
    targets: dict[str, Tensor],
    frames: Sequence[FrameInfo],
) -> Figures:
    """Forward, backward, step on one batch, or on this process's share of it. Does not wait for a GPU."""
    device, config = parts.device, parts.config
    images = images.to(device, non_blocking=True)
    targets = {name: value.to(device, non_blocking=True) for name, value in targets.items()}
    if config.dataset.color_jitter:
        images = jitter_colors(images, config.dataset.color_jitter, config.general.random_seed, epoch, frames)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.amp == "bf16"):
        outputs = forward(images, targets["indices"])
    terms = parts.criterion(outputs, targets)
    total = torch.stack(list(terms.values())).sum()
    # with the losses, in one transfer, so that all ranks stop after the same step
    counts = torch.tensor([len(frames), parts.interruption.signum is not None], dtype=total.dtype)
    if device.type == "cuda":
        counts = counts.pin_memory().to(device, non_blocking=True)
    figures = Figures(terms | {"total": total}, parts.ranks.total(counts), frames)
    parts.optimizer.zero_grad(set_to_none=True)
    total.backward()
    parts.optimizer.step()
    return figures


def jitter_colors(
    images: Tensor, strengths: Sequence[float], seed: int, epoch: int, frames: Sequence[FrameInfo]
) -> Tensor:
    """torchvision's ColorJitter, drawn for each image from (seed, epoch, frame id). (B, 3, H, W) uint8 -> same."""
    from torchvision.transforms import v2  # takes two seconds to import

    jitter = v2.ColorJitter(*strengths)
    jittered = torch.empty_like(images)
    with torch.random.fork_rng(devices=[]):
        for k, frame in enumerate(frames):
            torch.manual_seed(zlib.crc32(f"{seed} {epoch} {frame.frame_id}".encode()))
            jittered[k] = jitter(images[k])
    return jittered
