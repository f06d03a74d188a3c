"""How the cost of a training step and of inference grows: with the batch, the resolution, the objects, the topk.

    python tools/bench/growth.py                        # DLA-34, about ten minutes on two cores
    python tools/bench/growth.py --json growth.json

Ratios are costs per image against the first row of their group. How samples, depth maps and the evaluator grow with
the number of frames: tools/bench/evaluator.py has a row for it, the other two work frame by frame.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.config import Config, Dataset, General, Model
from lib.engine.device import choose_device
from tools.bench.network import OBJECTS, Bench
from tools.bench.report import Report, time_in_turn

RESOLUTIONS = ((640, 192), (960, 288), (1280, 384), (1600, 480))
BATCHES = (1, 2, 4, 8)
OBJECT_COUNTS = (0, 6, 25, 50)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="dla34")
    parser.add_argument("--repeats", type=int, default=3, help="the median counts")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    choose_device([0])
    report = Report(f"Growth, {args.backbone}; costs per image against the first of each group")
    base = Config(general=General(qi=True, obj_depth=True), model=Model(backbone=args.backbone, pretrained=False))
    for group, configs in groups(base).items():
        seconds: dict[str, float] = {}
        for name, (config, objects) in configs.items():
            bench = Bench(config, config.dataset.batch_size, objects)
            for kind in ("training",) if group == "objects" else ("training", "inference"):
                seconds[f"{kind}, {name}"] = measure(bench, getattr(bench, kind)(), args.repeats)
        for kind in ("training", "inference"):
            rows = {name: value for name, value in seconds.items() if name.startswith(kind)}
            for name, value in rows.items():
                report.add(name, value, "s/image", value / next(iter(rows.values())))
    return report.show(args.json)


def groups(base: Config) -> dict[str, dict[str, tuple[Config, int]]]:
    """By group and name: the configuration, and the objects of an image."""

    def at(resolution: tuple[int, int], batch: int) -> Config:
        return replace(base, dataset=Dataset(resolution=resolution, batch_size=batch))

    full = (1280, 384)
    return {
        "resolution": {f"{w} x {h}, batch 2": (at((w, h), 2), OBJECTS) for w, h in RESOLUTIONS},
        "batch": {f"{full[0]} x {full[1]}, batch {n}": (at(full, n), OBJECTS) for n in BATCHES},
        "objects": {f"{n} objects an image": (at(full, 2), n) for n in OBJECT_COUNTS},
    }


def measure(bench: Bench, run: Callable[[], object], repeats: int) -> float:
    """Seconds an image."""

    def once() -> None:
        run()
        if bench.device.type == "cuda":
            torch.cuda.synchronize()

    return statistics.median(time_in_turn({"": once}, repeats)[""]) / bench.batch


if __name__ == "__main__":
    sys.exit(main())
