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
from tools.bench.memory import compute_memory
from tools.bench.network import Bench, make_config
from tools.bench.samples import make_synthetic_tree
from tools.bench.timing import Report, Row

EPOCHS, FRAMES = 140, 3712  # epochs of the published schedule, frames of KITTI's train split
COMPARED_STEPS, COMPARED_RESOLUTION = 20, (320, 96)  # steps whose losses the CPU computes too


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    backbone: str = "dla34"
    resolution: tuple[int, int] = (1280, 384)
    batch: int = 16
    steps: int = 12  # timed steps, or batches of inference; their mean counts
    images: tuple[int, ...] = (1, 8, 32)  # batch sizes of inference
    product: int = 8192  # rows and columns of the matrix product
    frames: int = 160  # rendered frames of an epoch


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
    report, failed = Report(f"Training and inference on {args.device}{', tiny sizes' if args.quick else ''}"), False
    for name, seconds, measure in DeviceBench(device, QUICK if args.quick else Sizes()).measurements():
        rows, error = attempt(name, measure, end - time.monotonic() - seconds)
        failed |= error
        report.rows += rows
        if args.json is not None:
            report.write(args.json)
    report.show(args.json)
    return int(failed)


def time_call(call: Callable[[], object], repeats: int = 1, warmup: int = 0) -> float:
    """Mean seconds of ``repeats`` calls after ``warmup`` others; a GPU is not waited for between calls."""
    for index in range(warmup + repeats):
        if index == warmup:
            wait_for_gpu()
            start = time.perf_counter()
        call()
    wait_for_gpu()
    return (time.perf_counter() - start) / repeats


def wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


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
        yield "losses", 30, self.compare_losses
        yield "epoch", 90, self.measure_epoch
        yield from ((f"training, {name}", 120, step) for name, step in steps.items() if "compile" in VARIANTS[name])
        yield "best step", 0, self.measure_utilisation

    def measure_product(self) -> list[Row]:
        """Rate of a large matrix product: the upper limit for utilisation."""
        n = self.sizes.product  # random values, because products of zeros are faster
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        seconds = time_call(lambda: a @ b, 100 if self.cuda else 3, warmup=2)
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
        torch.cuda.reset_peak_memory_stats() if self.cuda else None
        seconds = time_call(step, self.sizes.steps, warmup=2)
        rate = self.rates[name] = batch / seconds
        plain = self.rates.get("plain float32")
        note = f"{1000 * seconds:.1f} ms per step of {batch}"
        rows = [Row(f"training, {name}", rate, "images/s", rate / plain if plain else None, note=note)]
        if self.cuda:
            note = "" if "plain" in variant else f"computed: {compute_memory(bench.config).peak / 1e9:.2f} GB"
            rows.append(Row(f"peak memory, {name}", torch.cuda.max_memory_allocated() / 1e9, "GB", note=note))
        return rows

    def measure_inference(self, batch: int) -> list[Row]:
        """Images in host memory -> outputs on the device, float32, BatchNorm folded."""
        torch.backends.cudnn.allow_tf32 = False
        bench = Bench(self.make_config(batch), self.device)
        network = torch.inference_mode()(bench.folded_network())
        seconds = time_call(lambda: network(bench.images.to(self.device, non_blocking=True)), self.sizes.steps, 2)
        return [Row(f"inference, batch {batch}", batch / seconds, "images/s", note=f"{1000 * seconds:.1f} ms a batch")]

    def compare_losses(self) -> list[Row]:
        """Total loss of the same float32 steps on the device and on the CPU."""
        torch.backends.cudnn.allow_tf32 = False
        found, config = [], make_config(self.sizes.backbone, min(self.sizes.resolution, COMPARED_RESOLUTION), 4)
        for device in (self.device, torch.device("cpu")):
            trainer = (bench := Bench(config, device)).trainer()
            steps = [trainer.step(bench.images, bench.targets, bench.frames) for _ in range(COMPARED_STEPS)]
            found.append(torch.tensor([step.read()[0]["total"] for step in steps], dtype=torch.float64))
        difference = (found[0] / found[1] - 1).abs()
        note = f"largest relative difference to the CPU; in the first step {difference[0]:.1e}"
        return [Row(f"losses of {COMPARED_STEPS} steps", difference.max().item(), note=note)]

    def measure_epoch(self) -> list[Row]:
        """The loader alone, then an epoch of the Trainer in bf16, on rendered frames of KITTI's size, without cache."""
        workers = min(8, available_cores())
        config = self.make_config(self.sizes.batch, amp=True, workers=workers)
        with tempfile.TemporaryDirectory() as folder:
            root = make_synthetic_tree(Path(folder), self.sizes.frames)
            frames = KITTI(root, "train", folder_for(config.dataset.writelist), paint_obj_depth=True)
            trainer = Bench(config, self.device).trainer(loader := training_loader(frames, config))
            for _ in range(2):  # the workers start in the first pass
                alone = time_call(lambda: [None for _ in loader])
                epoch = time_call(trainer.train_epoch)
                trainer.progress.finish_epoch(0.0)
        rate, step = self.sizes.frames / epoch, self.rates.get("bf16")
        waiting = f"; {1 - rate / step:.1%} of it waits for loader and host" if step and step > rate else ""
        hours, loaded = EPOCHS * FRAMES / rate / 3600, self.sizes.frames / alone
        return [
            Row(f"loader alone, {workers} workers", loaded, "images/s", note=f"{loaded / workers:.1f} per worker"),
            Row("epoch, bf16", rate, "images/s", note=f"{self.sizes.frames} frames in {epoch:.1f} s{waiting}"),
            Row(f"{EPOCHS} epochs of {FRAMES} images at that rate", hours, "h", note="evaluation not included"),
        ]

    def measure_utilisation(self) -> list[Row]:
        """The fastest step: the rate of the model's operations, and its share of the matrix product's."""
        name, rate = max(self.rates.items(), key=lambda item: item[1])
        bench = Bench(self.make_config(2), torch.device("cpu"))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            bench.trainer().model(bench.images, bench.targets["indices"])
        work = 3 * counter.get_total_flops() / bench.batch  # backward counts as two forward passes
        achieved = work * rate / 1e12
        known = self.product_rate is not None and achieved < self.product_rate  # not so in tiny sizes
        share = f"{achieved / self.product_rate:.1%} of the matrix product's rate" if known else ""
        return [Row(f"rate of the model's operations, {name}", achieved, "TFLOP/s", note=share)]

    def make_config(self, batch: int, amp: bool = False, compile: bool = False, workers: int = 0) -> Config:
        trainer = Trainer(amp="bf16" if amp else False, compile=compile, gpu_ids=(0,) if self.cuda else ())
        config = make_config(self.sizes.backbone, self.sizes.resolution, batch)
        return replace(config, trainer=trainer, dataset=replace(config.dataset, num_workers=workers))

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
