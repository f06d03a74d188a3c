"""Memory of a training step, computed from the shapes of all tensors, and compared with a measured step on the CPU.

    python tools/bench/memory.py                      # DLA-34, 1280 x 384, batch 16: computed, in a minute, any machine
    python tools/bench/memory.py --batch 2 --measure  # also measured, in a process of its own

Two steps run on tensors without content (torch's FakeTensorMode). Every storage counts from the operation that makes it
until it is freed; the peak is the largest sum. What CUDA, cuDNN's workspaces and fragmentation take is not included.
"""

import argparse
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.config import Config
from lib.engine.optimizer import build_optimizer
from lib.engine.step import add_gradients
from lib.losses import Criterion
from lib.models import build_model
from lib.system.commands import run_command
from tools.bench.network import Bench, make_config, make_side
from tools.bench.timing import Report, Row, Side

PARTS = (1, 2, 4)  # values of trainer.accumulate


class LiveMemory(TorchDispatchMode):
    """Bytes of all storages that operations inside this context have made and that are not freed; and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(result)
        return result

    def add(self, tensors: Any) -> None:
        """Count the storages of ``tensors``, in nested containers, that are not counted yet."""
        for tensor in tree_leaves(tensors):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is None or id(storage) in self._seen:
                continue
            self._seen.add(id(storage))
            weakref.finalize(storage, self._remove, id(storage), storage.nbytes())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step."""

    parameters: int
    gradients: int
    optimizer: int
    peak: int  # all of these together, the batch, and the activations at their largest


def replace_tensors(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
    """Replace all parameters and buffers by ``convert`` of them, such as tensors of a FakeTensorMode."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(convert(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = convert(buffer)


def compute_memory(config: Config) -> StepMemory:
    """The memory of a step of ``config``, in the way of ``Trainer.step``, on tensors without content."""
    mode, live = FakeTensorMode(), LiveMemory()
    bench = Bench(config, torch.device("cpu"))
    model = build_model(config).to(memory_format=torch.channels_last).train()
    replace_tensors(model, mode.from_tensor)
    images: Tensor = mode.from_tensor(bench.images)
    targets: dict[str, Tensor] = {name: mode.from_tensor(value) for name, value in bench.targets.items()}
    criterion, optimizer = Criterion(config.general), build_optimizer(model, config.optimizer)

    def compute_losses(images: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.trainer.amp == "bf16"):
            outputs = model(images, targets["indices"])
        return criterion(outputs, targets)

    with mode, live:
        live.add([list(model.parameters()), list(model.buffers()), images, targets])
        for _ in range(2):  # the optimizer's state is made in the first step
            optimizer.zero_grad(set_to_none=True)
            parts = config.trainer.accumulate
            add_gradients(compute_losses, images, targets, parts, list, nullcontext)
            gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
            optimizer.step()
    parameters = sum(p.nbytes for p in model.parameters())
    state = sum(value.nbytes for entry in optimizer.state.values() for value in entry.values())
    return StepMemory(parameters, gradients, state, live.peak)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--resolution", type=int, nargs=2, default=(1280, 384), metavar=("W", "H"))
    parser.add_argument("--backbone", default="dla34")
    parser.add_argument("--measure", action="store_true", help="also run float32 steps on the CPU")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    return run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Compute, and measure where that is asked for. Raises ValueError for bad input."""
    plain = make_config(args.backbone, tuple(args.resolution), args.batch)
    width, height = args.resolution
    report = Report(f"Memory of a training step: {args.backbone}, {width} x {height}, batch {args.batch}")
    for amp, parts in [(amp, parts) for amp in (False, "bf16") for parts in PARTS if parts <= args.batch]:
        config = replace(plain, trainer=replace(plain.trainer, amp=amp, accumulate=parts))
        memory = compute_memory(config)
        if not report.rows:
            fixed = {"parameters": memory.parameters, "gradients": memory.gradients, "optimizer": memory.optimizer}
            report.rows += [Row(name, size / 1e9, "GB") for name, size in fixed.items()]
        name = f"{'bf16' if amp else 'float32'}, trainer.accumulate {parts}"
        report.rows.append(Row(f"peak, {name}", memory.peak / 1e9, "GB"))
        if args.measure and not amp and parts == 1:
            side = Side(make_side, plain, "training")
            computed = (memory.peak - memory.parameters) / 1e9  # the network is made before the first call
            report.rows.append(Row("the same without parameters, computed", computed, "GB"))
            report.rows.append(Row("the same without parameters, measured", side.measure_peak() / 1e3, "GB"))
            side.close()
    report.show(args.json)


if __name__ == "__main__":
    sys.exit(main())
