#!/usr/bin/env python3
"""Compare configurations: train each arm with several seeds, and show their differences with intervals.

    python tools/compare.py --config experiments/monodle/monodle.yaml --arms monodle ddml --seeds 5 --out runs/ddml
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.comparison.run import CompareOptions, compare
from lib.config import PROJECT_ROOT
from lib.ops.text import counted
from lib.system.commands import run_command
from lib.system.interruption import Interruption

TRAIN_VAL = PROJECT_ROOT / "tools" / "train_val.py"
ARMS_FILE = PROJECT_ROOT / "experiments" / "evidence" / "arms.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 where runs failed, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="DIR: outputs/<arm>_seed<k>/ with the runs, logs/, comparison.txt, .csv, .md, .tex and .png, runs.csv.\n"
        "Run the same command again to continue.",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="X.yaml", help="what all arms have in common")
    arms = parser.add_mutually_exclusive_group(required=True)
    names = "sets of keys of --arms-file; each is compared with the first"
    arms.add_argument("--arms", nargs="+", default=(), metavar="NAME", help=names)
    arms.add_argument("--over", metavar="SECTION.KEY=A,B,C", help="one arm for each value of a key")
    seeds = "general.random_seed 1 to N, or M to N; default: %(default)s"
    parser.add_argument("--seeds", default="5", metavar="N or M-N", help=seeds)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of runs and tables")
    parser.add_argument("--arms-file", type=Path, default=ARMS_FILE, metavar="Y.yaml", help="default: %(default)s")
    override = "SECTION.KEY=VALUE, for all arms"
    parser.add_argument("--set", dest="overrides", nargs="+", action="extend", default=[], metavar="K=V", help=override)
    slots = parser.add_mutually_exclusive_group()
    gpus = "one run at a time on each of these GPUs (an ID given twice: two); default: one, on trainer.gpu_ids"
    slots.add_argument("--gpus", nargs="+", type=int, default=(), metavar="ID", help=gpus)
    slots.add_argument("--jobs", type=int, metavar="N", help="N runs at a time on the CPU, which share its cores")
    slurm = "one Slurm job a run, with these options of sbatch: partition=gpu time=12:00:00 gpus=1 ..; needs submitit"
    slots.add_argument("--slurm", nargs="+", metavar="NAME=VALUE", help=slurm)
    plan = "train nothing; print one command a line for each missing run, for another scheduler"
    slots.add_argument("--plan", action="store_true", help=plan)
    bootstrap = "replicates for the intervals over drives or frames; default: %(default)s, 0: none"
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help=bootstrap)
    parser.add_argument("--report-only", action="store_true", help="train nothing; write tables of finished runs")
    args = vars(parser.parse_args(argv))
    interruption = Interruption()

    def body() -> int:
        text, failures = compare(CompareOptions(**args, train_script=TRAIN_VAL, environment=os.environ), interruption)
        print(text)
        if failures:
            head = f"{counted(len(failures), 'run')} failed; the same command tries them again:"
            print(head, *failures, sep="\n", file=sys.stderr)
        return 1 if failures else 0

    return run_command(body, interruption)


if __name__ == "__main__":
    sys.exit(main())
