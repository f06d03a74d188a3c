#!/usr/bin/env python3
"""Answer whether one configuration detects better than another: train arms with several seeds, compare them by seed.

    python tools/compare.py --config experiments/monodle/monodle.yaml --arms monodle ddml --seeds 5 --out runs/ddml
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.comparison.arms import PlannedRun, plan_runs, read_arms, refuse_other_configurations
from lib.comparison.plot import Panels, Row, plot_arms
from lib.comparison.run_queue import RunQueue, Slot
from lib.comparison.statistics import LEVEL
from lib.comparison.table import Comparison, ap_figures, depth_figures, main_figures
from lib.config import PROJECT_ROOT, find_dataroot, load_config
from lib.datasets.kitti import find_data_dir
from lib.datasets.object_depth import folder_for
from lib.engine.metrics import read_metrics
from lib.system.commands import run_command, setup_logging
from lib.system.files import write_file
from lib.system.interruption import Interruption
from lib.system.machine import available_cores

logger = logging.getLogger("lib.tools.compare")
TRAIN_VAL = PROJECT_ROOT / "tools" / "train_val.py"
ARMS_FILE = PROJECT_ROOT / "experiments" / "evidence" / "arms.yaml"
NOTES = """\
n: runs that have the figure; '4 of 5': one of 5 finished runs has none (a class never detected, a loss it does not use)
sd: sample standard deviation of the runs
difference: mean over the seeds that both arms have finished, with its {level} interval by Student's t ('-': below 2)
An interval stands for itself: of 20 comparisons without any difference, one interval is expected to miss 0.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 where runs failed, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="DIR: outputs/<arm>_seed<k>/ with the runs, logs/, comparison.txt, .csv and .png, runs.csv. The same "
        "command\ngoes on where it stopped, and may be given on several hosts that share DIR.",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="X.yaml", help="what all arms have in common")
    parser.add_argument(
        "--arms", required=True, nargs="+", metavar="NAME", help="the first is what the others are compared with"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="general.random_seed 1 to N; default: 5")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--arms-file", type=Path, default=ARMS_FILE, metavar="Y.yaml", help="default: %(default)s")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="overrides for all arms"
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--gpus",
        nargs="+",
        type=int,
        metavar="ID",
        help="one run at a time on each of these GPUs (named twice: two); default: one run, as trainer.gpu_ids says",
    )
    places.add_argument("--jobs", type=int, metavar="N", help="N runs at a time on the CPU, which share its cores")
    parser.add_argument("--report-only", action="store_true", help="train nothing; tables of what is there")
    args = parser.parse_args(argv)
    interruption = Interruption()
    return run_command(lambda: compare(args, interruption), interruption)


def compare(args: argparse.Namespace, interruption: Interruption) -> int:
    """Raises FileNotFoundError or ValueError for what cannot be run or read, Interrupted after a signal."""
    runs = planned(args)
    out = runs[0].working_dir
    refuse_other_configurations(runs)
    if args.report_only:
        if not out.is_dir():
            raise FileNotFoundError(f"{out}: no such folder of a comparison")
        print(report(args, runs))
        return 0
    check_data(runs)
    slots = slots_for(args.gpus, args.jobs, os.environ)
    setup_logging(out / "logs" / "compare.log")
    logger.info("%d runs, %d of them finished; %s", len(runs), sum(run.finished for run in runs), out)

    def on_finished(run: PlannedRun) -> str:
        report(args, runs, image=False)
        figures = figures_of(run)
        first = main_figures(run.config.dataset.writelist)[0]
        return f"{first} {figures.get(first, math.nan):.2f}"

    command = partial(command_of, args.config.resolve())
    failures = RunQueue(runs, slots, command, out, interruption, on_finished).work_off()
    print(report(args, runs))
    if failures:
        print(f"{len(failures)} runs failed; the same command tries them again:", *failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


def planned(args: argparse.Namespace) -> list[PlannedRun]:
    """What is asked for, checked; nothing is written."""
    if args.seeds < 1:
        raise ValueError(f"--seeds must be >= 1, got {args.seeds}")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs must be >= 1, got {args.jobs}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out must be a folder, {args.out} is a file")
    device = ["trainer.gpu_ids=[0]"] if args.gpus else ["trainer.gpu_ids=[]"] if args.jobs else []
    arms = read_arms(args.arms_file, args.arms)
    return plan_runs(args.config, arms, range(1, args.seeds + 1), args.set, device, args.out.resolve())


def check_data(runs: Sequence[PlannedRun]) -> None:
    """Now, and not when the first arm has been trained for a day: does every arm find its data?"""
    for run in runs:
        config, root = run.config, find_dataroot(run.config)
        for split in (config.dataset.train_split, config.tester.split):
            if not (root / "ImageSets" / f"{split}.txt").is_file():
                raise FileNotFoundError(f"{root / 'ImageSets' / split}.txt: no such list of frames")
        depth = find_data_dir(root, "training") / folder_for(config.dataset.writelist)
        if config.general.obj_depth and config.dataset.obj_depth_source == "files" and not depth.is_dir():
            raise FileNotFoundError(
                f"{depth}: no object-wise depth maps, which arm {run.arm!r} needs; run make_obj_depth.py, or "
                "--set dataset.obj_depth_source=labels"
            )


def slots_for(gpus: Sequence[int] | None, jobs: int | None, environment: Mapping[str, str]) -> list[Slot]:
    """Where runs may run side by side. Raises ValueError for a GPU that this process does not see."""
    number = len(gpus or []) or jobs or 1
    shared = {**environment}
    if number > 1:
        shared.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // number)))
    if not gpus:
        return [Slot("the CPU" if jobs else "the devices of trainer.gpu_ids", shared)] * number
    from torch import cuda  # slow to import, and only this needs it

    # a run that does not find its GPU would train on the CPU; and a cluster may have chosen the GPUs already
    chosen = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = chosen or [str(k) for k in range(cuda.device_count())]
    for gpu in gpus:
        if not 0 <= gpu < cuda.device_count():
            raise ValueError(f"--gpus: no GPU {gpu}; this process sees {cuda.device_count()}, counted from 0")
    return [Slot(f"GPU {gpu}", {**shared, "CUDA_VISIBLE_DEVICES": names[gpu]}) for gpu in gpus]


def command_of(base: Path, run: PlannedRun) -> list[str]:
    """Raises ValueError or OSError where the experiment or the run's folder is no longer what was planned with."""
    if load_config(base, run.overrides) != run.config:
        raise ValueError(f"{base} has changed since this command was started")
    refuse_other_configurations([run])
    return [sys.executable, str(TRAIN_VAL), "--config", str(base), "--resume", "--set", *run.overrides]


def figures_of(run: PlannedRun) -> dict[str, float]:
    """All figures of a finished run by name. Raises ValueError or OSError naming the file that cannot be read."""
    figures: dict[str, float] = {}
    for name, read in (("ap.json", ap_figures), ("depth_error.json", depth_figures)):
        path = run.results / name
        if name == "depth_error.json" and not path.exists():  # a run of an older version: it counts as without figure
            continue
        try:
            figures |= read(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    records = read_metrics(run.folder / "metrics.jsonl")
    terms = records[-1]["losses"]
    zero = {name: math.fsum(record.get("zero_share", {}).get(name, 0.0) for record in records) for name in terms}
    figures |= {f"final loss: {name}": float(value) for name, value in terms.items()}
    return figures | {f"steps with loss 0 [%]: {name}": 100 * zero[name] / len(records) for name in terms}


def report(args: argparse.Namespace, runs: Sequence[PlannedRun], image: bool = True) -> str:
    """Write all tables of what is finished, and the image, which takes a second.

    Returns what to print: the main figures, and where the rest is.
    """
    out, config = runs[0].working_dir, runs[0].config
    arms = tuple(dict.fromkeys(run.arm for run in runs))
    seeds = tuple(dict.fromkeys(run.seed for run in runs))
    comparison = Comparison(arms, seeds, {(run.arm, run.seed): figures_of(run) for run in runs if run.finished})
    classes = sorted(config.dataset.writelist, key=lambda name: name != "Car")
    main = [name for name in main_figures(classes) if name in comparison.figures]
    head = "\n".join(_head(args, runs))
    notes = NOTES.format(level=f"{LEVEL:.0%}")
    everything = main + [name for name in comparison.figures if name not in main]
    write_file(out / "comparison.txt", f"{head}\n\n{notes}\n{comparison.table(everything)}\n".encode())
    write_file(out / "comparison.csv", comparison.to_csv().encode())
    write_file(out / "runs.csv", comparison.runs_to_csv().encode())
    places = f"{out / 'comparison.txt'} (all {len(everything)} figures), comparison.csv, runs.csv"
    if main and image:
        panels = [_panels(comparison, name) for name in main_figures(classes[:1]) if name in main]
        plot_arms(panels, f"{LEVEL:.0%} interval", out / "comparison.png")
        places += ", comparison.png"
    return f"{head}\n\n{comparison.table(main)}\n\n{notes}\n{places}"


def _head(args: argparse.Namespace, runs: Sequence[PlannedRun]) -> list[str]:
    """What is compared, and what is missing."""
    config = runs[0].config
    lines = [f"{args.config} {' '.join(args.set)}".rstrip()]
    lines.append(f"split {config.tester.split}, after the last epoch, seeds 1 to {args.seeds}")
    lines.append("AP in percent: more is better; depth errors: less is better")
    lines += dict.fromkeys(f"  {run.arm}: {' '.join(run.changes) or 'no changes'}" for run in runs)
    missing = [run for run in runs if not run.finished]
    lines.append(f"{len(runs) - len(missing)} of {len(runs)} runs are finished")
    if missing:
        names = [f"{run.name} ({run.epochs_done} of {run.config.trainer.max_epoch} epochs)" for run in missing]
        lines.append(f"{len(missing)} are missing: {', '.join(names)}")
    return lines


def _panels(comparison: Comparison, figure: str) -> Panels:
    own, differences = [], []
    for arm in comparison.arms:
        sample = comparison.summary(arm, figure)
        own.append(Row(arm, comparison.values(arm, figure), sample.mean, sample.margin))
        if arm == comparison.arms[0]:
            differences.append(Row(arm, {}, math.nan, math.nan))
            continue
        sample = comparison.difference(arm, figure)
        differences.append(Row(arm, comparison.differences(arm, figure), sample.mean, sample.margin))
    return Panels(figure, own, differences)


if __name__ == "__main__":
    sys.exit(main())
