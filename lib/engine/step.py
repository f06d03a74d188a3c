"""Parts of a training step: memory format, compilation, colour jitter, and the copy of the losses to the host."""

import math
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..structures import FrameInfo

Tensors = dict[str, Tensor]
Reduction = Callable[[Tensor], Tensor]


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


def copy_to_device(values: Sequence[float], device: torch.device) -> Tensor:
    """``values`` as a float32 tensor on ``device``; a GPU is not waited for."""
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def steps_in_flight(device: torch.device) -> int:
    """Steps queued before the oldest losses are read back: a GPU must not wait for the host to read them."""
    return 1 if device.type == "cuda" else 0


def add_gradients(
    compute_losses: Callable[[Tensor, Tensors], Tensors],
    images: Tensor,
    targets: Tensors,
    parts: int,
    sum_integers: Callable[[Sequence[int]], list[int]],
    keep_gradients_local: Callable[[], AbstractContextManager[None]],
) -> Tensors:
    """Backward passes of a batch in ``parts``, one after the other. Returns its losses, with their sum as 'total'.

    ``compute_losses(images, targets)`` gives a part's losses over all ranks; they count by the part's share of all
    images, and a part that no rank has images of is left out. Ranks exchange gradients in the last backward pass only.
    """
    if parts == 1:
        return _backward(compute_losses(images, targets))
    split_images = images.tensor_split(parts)
    split_targets = {name: value.tensor_split(parts) for name, value in targets.items()}
    sizes = [size for size in sum_integers([len(part) for part in split_images]) if size]
    sums: Tensors = {}
    for k, size in enumerate(sizes):  # the first parts are the larger ones, on every rank
        share = size / sum(sizes)
        with keep_gradients_local() if k + 1 < len(sizes) else nullcontext():
            losses = compute_losses(split_images[k], {name: value[k] for name, value in split_targets.items()})
            losses = _backward({name: share * value for name, value in losses.items()})
        sums = {name: sums[name] + value if sums else value for name, value in losses.items()}
    return sums


def _backward(losses: Tensors) -> Tensors:
    """The losses, and their sum as 'total', after its backward pass."""
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    return {name: value.detach() for name, value in (losses | {"total": total}).items()}


class StepLosses:
    """Losses of one step, copied to the host asynchronously."""

    def __init__(
        self, terms: Tensors, counts: Sequence[float], all_reduce_sum: Reduction, frames: Sequence[FrameInfo]
    ) -> None:
        """``terms``: scalars, with their sum as 'total'. ``counts``: images of this rank; whether to stop, to save."""
        self.names, self.frames = list(terms), frames
        summed = all_reduce_sum(copy_to_device(counts, terms["total"].device))
        values = torch.cat([torch.stack(list(terms.values())), summed]).detach()
        self.copied: torch.cuda.Event | None = None
        if values.is_cuda:
            self.values = torch.empty(values.shape, dtype=values.dtype).pin_memory()
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
