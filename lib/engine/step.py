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

from lib.config import Config
from lib.engine.distributed import Ranks
from lib.engine.interruption import Interruption
from lib.structures import FrameInfo

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

    @property
    def frames(self) -> int:
        """of the training split"""
        return len(cast(Any, self.loader.dataset))


def prepare(model: nn.Module, device: torch.device) -> None:
    """Bring ``model`` to ``device``, in the memory format that convolutions are fastest in."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_step(
    parts: Parts,
    forward: nn.Module,
    epoch: int,
    images: Tensor,
    targets: dict[str, Tensor],
    frames: Sequence[FrameInfo],
) -> tuple[dict[str, float], int, bool]:
    """Forward, backward, step on one batch, or on this process's share of it.

    Returns:
        the whole batch's terms and their 'total'; its number of pictures; whether a process was asked to stop.

    Raises FloatingPointError where the loss is not finite.
    """
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
    extra = parts.ranks.total(total.new_tensor([len(frames), parts.interruption.signum is not None]))
    *numbers, pictures, stop = torch.cat([torch.stack([*terms.values(), total]).detach(), extra]).tolist()
    values = dict(zip([*terms, "total"], numbers, strict=True))
    if not math.isfinite(values["total"]):
        shown = ", ".join(f"{name}={value:g}" for name, value in values.items())
        raise FloatingPointError(
            f"the loss is not finite: {shown}; frames {', '.join(f.frame_id for f in frames)}; "
            "the weights are those before this step. Lower optimizer.lr, or look at these frames' labels"
        )
    parts.optimizer.zero_grad(set_to_none=True)
    total.backward()
    parts.optimizer.step()
    return values, round(pictures), stop > 0


def jitter_colors(
    images: Tensor, strengths: Sequence[float], seed: int, epoch: int, frames: Sequence[FrameInfo]
) -> Tensor:
    """torchvision's ColorJitter, drawn for each picture from (seed, epoch, frame id). (B, 3, H, W) uint8 -> same."""
    from torchvision.transforms import v2  # takes two seconds to import

    jitter = v2.ColorJitter(*strengths)
    jittered = torch.empty_like(images)
    with torch.random.fork_rng(devices=[]):
        for k, frame in enumerate(frames):
            torch.manual_seed(zlib.crc32(f"{seed} {epoch} {frame.frame_id}".encode()))
            jittered[k] = jitter(images[k])
    return jittered
