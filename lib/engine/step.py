"""Parts of a training step: memory format, compilation, colour jitter, and the copy of the losses to the host."""

import math
import zlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..structures import FrameInfo


def to_channels_last(model: nn.Module, device: torch.device) -> None:
    """Move ``model`` to ``device``, in channels-last memory format; its effect: tools/bench/network.py."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


class CompiledForward(nn.Module):
    """torch.compile of a forward pass, with one compilation for each batch size of an epoch. Shares the parameters.

    Raises ValueError at the first call where the machine cannot compile.
    """

    def __init__(self, eager: nn.Module) -> None:
        super().__init__()
        self.eager, self.compiled = eager, cast(nn.Module, torch.compile(eager, dynamic=False))

    def forward(self, images: Tensor, indices: Tensor) -> Any:
        if not len(images):  # a rank without images: not worth a compilation
            return self.eager(images, indices)
        try:
            return self.compiled(images, indices)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).partition("\n")[0]
            raise ValueError(f"trainer.compile: {reason}; fix this, or set trainer.compile to false") from error


def steps_in_flight(device: torch.device) -> int:
    """Steps queued before the oldest losses are read back: a GPU must not wait for the host to read them."""
    return 1 if device.type == "cuda" else 0


class StepLosses:
    """Losses of one step, copied to the host asynchronously."""

    def __init__(self, terms: dict[str, Tensor], counts: Tensor, frames: Sequence[FrameInfo]) -> None:
        """``terms``: scalars, with their sum as 'total'. ``counts`` (3,): images; ranks asked to stop, and to save."""
        self.names, self.frames = list(terms), frames
        values = torch.cat([torch.stack(list(terms.values())), counts]).detach()
        self.copied: torch.cuda.Event | None = None
        if values.is_cuda:
            self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.copied = torch.cuda.Event()
            self.copied.record()
        else:
            self.values = values

    def read(self) -> tuple[dict[str, float], int, bool, bool]:
        """Wait for the copy. Returns the whole batch's terms, its number of images, whether to stop, and to save.

        Raises FloatingPointError where the loss is not finite, with the terms and the frame ids.
        """
        if self.copied is not None:
            self.copied.synchronize()
        *values, images, stop, due = self.values.tolist()
        terms = dict(zip(self.names, values, strict=True))
        if not math.isfinite(terms["total"]):
            shown = ", ".join(f"{name}={value:g}" for name, value in terms.items())
            raise FloatingPointError(
                f"the loss is not finite: {shown}; frames {', '.join(f.frame_id for f in self.frames)}; "
                "nothing of this step is saved. Lower optimizer.lr, or look at these frames' labels"
            )
        return terms, round(images), stop > 0, due > 0


def jitter_colors(
    images: Tensor, strengths: Sequence[float], seed: int, epoch: int, frames: Sequence[FrameInfo]
) -> Tensor:
    """torchvision's ColorJitter, drawn for each image from (seed, epoch, frame id). (B, 3, H, W) uint8 -> same."""
    from torchvision.transforms import v2  # imported here because only colour jitter needs it

    jitter = v2.ColorJitter(*strengths)
    jittered = torch.empty_like(images)
    with torch.random.fork_rng(devices=[]):
        for k, frame in enumerate(frames):
            torch.manual_seed(zlib.crc32(f"{seed} {epoch} {frame.frame_id}".encode()))
            jittered[k] = jitter(images[k])
    return jittered
