"""Training and inference on one GPU, in one call of at most nine minutes: DLA-34, 1280 x 384, batch 16.

    python tools/bench/gpu.py --json gpu.json
    python tools/bench/gpu.py --quick --device cpu            # tiny sizes: does the script work?

Plain is the float32 step in the way of the official code, without TF32 (tools/bench/network.py). A measurement that
fails, or that no time is left for, is a line that gives the reason. The JSON file is written after each line.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.config import Config, Trainer
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import folder_for
from lib.datasets.samples import training_loader
from lib.engine.device import choose_device
from lib.engine.step import StepLosses, steps_in_flight
from lib.system.commands import run_command
from lib.system.machine import available_cores
from tools.bench.network import Bench, make_config
from tools.bench.samples import make_synthetic_tree
from tools.bench.timing import Report, Row

EPOCHS, FRAMES = 140, 3712  # epochs of the published schedule, frames of KITTI's train split


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    backbone: str = "dla34"
    resolution: tuple[int, int] = (1280, 384)
    batch: int = 16
    steps: int = 12  # timed steps, or batches of inference; their mean counts
    images: tuple[int, ...] = (1, 8, 32)  # batch sizes of inference
    product: int = 8192  # rows and columns of the matrix product
    frames: int = 48  # rendered frames for the loader


QUICK = Sizes("dla34_narrow", (96, 64), batch=2, steps=2, images=(1, 2), product=64, frames=4)

VARIANTS = {  # ways to train -> what is switched on
    "plain float32": ("plain",),
    "float32": (),
    "float32, TF32 convolutions": ("tf32",),
    "bf16": ("tf32", "amp"),
    "float32, TF32 convolutions, compiled": ("tf32", "compile"),
    "bf16, compiled": ("tf32", "amp", "compile"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if a measurement failed, 2 without a CUDA device or for bad input, otherwise 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which measure nothing of interest")
    parser.add_argument("--limit", type=float, default=540, metavar="SECONDS", help="of the whole call (default 540)")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    return run_command(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Measure line by line. Raises ValueError without the device, OSError for a JSON file that cannot be written."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("this benchmark needs a CUDA device, and torch finds none; nothing was measured")
    end = time.monotonic() + args.limit
    device = choose_device([0] if args.device == "cuda" else [])
    title = f"One step of training, and inference, on {args.device}{', tiny sizes' if args.quick else ''}"
    report, failed = Report(title), False
    for name, seconds, measure in DeviceBench(device, QUICK if args.quick else Sizes()).measurements():
        rows, error = attempt(name, measure, end - time.monotonic() - seconds)
        failed |= error
        report.rows += rows
        if args.json is not None:
            report.write(args.json)
    report.show(args.json)
    return int(failed)


def time_call(call: Callable[[], object], repeats: int) -> float:
    """Mean seconds of ``repeats`` calls, after two that do not count; a GPU is not waited for between calls."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.timeit(repeats).mean


def attempt(name: str, measure: Callable[[], list[Row]], seconds_left: float) -> tuple[list[Row], bool]:
    """The rows of ``measure``, or one row with the reason; and whether it failed. Frees the memory that it took."""
    if seconds_left < 0:
        return [Row(name, None, note="not measured: no time left")], False
    failed = False
    try:
        rows = measure()
    except Exception as error:  # one failure must not prevent the other measurements
        failed = not isinstance(error, torch.cuda.OutOfMemoryError)
        reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        rows = [Row(name, None, note=reason if failed else "not measured: out of memory")]
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows, failed


class DeviceBench:
    """The measurements, which keep what later ones are compared with."""

    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self.device, self.sizes, self.cuda = device, sizes, device.type == "cuda"
        self.product_rate: float | None = None
        self.rates: dict[str, float] = {}  # images/s by variant

    def measurements(self) -> Iterator[tuple[str, float, Callable[[], list[Row]]]]:
        """(name, seconds that must be left, function): the most important first, compilation last."""
        yield "bf16 matrix product", 5, self.measure_product
        steps = {name: partial(self.measure_training, name) for name in VARIANTS}
        yield from ((f"training, {name}", 15, step) for name, step in steps.items() if "compile" not in VARIANTS[name])
        yield from ((f"inference, batch {n}", 10, partial(self.measure_inference, n)) for n in self.sizes.images)
        yield "loader", 60, self.measure_loader
        yield from ((f"training, {name}", 120, step) for name, step in steps.items() if "compile" in VARIANTS[name])
        yield "best step", 0, self.summarize_best

    def measure_product(self) -> list[Row]:
        """Rate of a large matrix product: the upper limit for utilisation."""
        n = self.sizes.product
        # random, because products of zeros are faster
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        seconds = time_call(lambda: a @ b, 100 if self.cuda else 3)
        self.product_rate = 2 * n**3 / seconds / 1e12
        return [Row(f"bf16 matrix product, {n}^3", self.product_rate, "TFLOP/s")]

    def measure_training(self, name: str) -> list[Row]:
        """Step time, images/s, peak memory, and ratios to the plain step."""
        variant, batch = VARIANTS[name], self.sizes.batch
        if "compile" in variant and not self.cuda:
            return [Row(f"training, {name}", None, note="not measured: no CUDA device")]
        torch.backends.cudnn.allow_tf32 = "tf32" in variant
        bench = Bench(self.make_config(batch, "amp" in variant, "compile" in variant), self.device)
        step = bench.plain_training() if "plain" in variant else self.make_step(bench)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = time_call(step, self.sizes.steps)
        rate = self.rates[name] = batch / seconds
        plain = self.rates.get("plain float32")
        note = f"{1000 * seconds:.1f} ms per step of {batch}"
        rows = [Row(f"training, {name}", rate, "images/s", rate / plain if plain else None, note=note)]
        if self.cuda:
            rows.append(Row(f"peak memory, {name}", torch.cuda.max_memory_allocated() / 1e9, "GB"))
        return rows

    def measure_inference(self, batch: int) -> list[Row]:
        """Images in host memory -> outputs on the device, float32, BatchNorm folded."""
        torch.backends.cudnn.allow_tf32 = False
        bench = Bench(self.make_config(batch), self.device)
        network = torch.inference_mode()(bench.folded_network())
        steps = self.sizes.steps
        seconds = time_call(lambda: network(bench.images.to(self.device, non_blocking=True)), steps)
        return [Row(f"inference, batch {batch}", batch / seconds, "images/s", note=f"{1000 * seconds:.1f} ms a batch")]

    def measure_loader(self) -> list[Row]:
        """Samples per second that the loader delivers from rendered frames of KITTI's size, without cache."""
        workers = min(8, available_cores())
        config = self.make_config(self.sizes.batch)
        config = replace(config, dataset=replace(config.dataset, num_workers=workers))
        with tempfile.TemporaryDirectory() as folder:
            root = make_synthetic_tree(Path(folder), self.sizes.frames)
            frames = KITTI(root, "train", folder_for(config.dataset.writelist), paint_obj_depth=True)
            loader = training_loader(frames, config)
            for _ in range(2):  # the workers start in the first pass
                start = time.perf_counter()
                images = sum(len(batch.images) for batch in loader)
                seconds = time.perf_counter() - start
        best = max(self.rates.values(), default=None)
        ratio = images / seconds / best if best else None
        note = "ratio to the fastest eager step: above 1 the loader keeps up"
        return [Row(f"loader, {workers} workers", images / seconds, "images/s", ratio, note=note)]

    def summarize_best(self) -> list[Row]:
        """The fastest step: share of the matrix product's rate, and time of the published schedule."""
        name, rate = max(self.rates.items(), key=lambda item: item[1])
        hours = EPOCHS * FRAMES / rate / 3600
        rows = [Row(f"{EPOCHS} epochs of {FRAMES} images at that rate", hours, "h", note=f"steps only: {name}")]
        bench = Bench(self.make_config(2), torch.device("cpu"))
        model = bench.trainer().model
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(bench.images, bench.targets["indices"])
        work = 3 * counter.get_total_flops() / bench.batch  # backward counts as two forward passes
        achieved = work * rate / 1e12
        share = f"{achieved / self.product_rate:.1%} of the matrix product's rate" if self.product_rate else ""
        return [*rows, Row(f"rate of the model's operations, {name}", achieved, "TFLOP/s", note=share)]

    def make_config(self, batch: int, amp: bool = False, compile: bool = False) -> Config:
        trainer = Trainer(amp="bf16" if amp else False, compile=compile, gpu_ids=(0,) if self.cuda else ())
        return replace(make_config(self.sizes.backbone, self.sizes.resolution, batch), trainer=trainer)

    def make_step(self, bench: Bench) -> Callable[[], None]:
        """A step as ``Trainer.train_epoch`` has it: losses are read back some steps later."""
        trainer = bench.trainer()
        queue: deque[StepLosses] = deque()

        def step() -> None:
            queue.append(trainer.step(bench.images, bench.targets, bench.frames))
            while len(queue) > steps_in_flight(self.device):
                queue.popleft().read()

        return step


if __name__ == "__main__":
    sys.exit(main())
