#!/usr/bin/env python3
"""Draw losses, learning rate, speed and AP of one or several runs over epochs, each quantity in a panel of its own.

    python tools/plot_run.py outputs/monodle outputs/ddml --out compared.pdf

A run may still be going on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.engine.metrics import read_metrics
from lib.system.commands import run_command, setup_logging
from lib.visualization.curves import plot_metrics
from lib.visualization.panels import check_format

METRICS, CURVES = "metrics.jsonl", "curves.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="outputs/RUN", help=f"folders with {METRICS}")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f".png, .pdf or .svg; default: {CURVES}, of one run in its folder (drawn anew), of several in this one",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier FILE")
    args = parser.parse_args(argv)
    return run_command(lambda: plot_run(args.runs, args.out, args.overwrite))


def plot_run(runs: Sequence[Path], out: Path | None, overwrite: bool = False) -> int:
    """Raises FileNotFoundError or ValueError, naming the run or the file, for what cannot be drawn."""
    setup_logging()
    own = runs[0] / CURVES if len(runs) == 1 else None
    path = out or own or Path(CURVES)
    check_format(path, "--out")
    records = {name: read_run(run) for name, run in run_names(runs).items()}
    if path.exists() and path != own and not overwrite:
        raise ValueError(f"{path} exists already; --overwrite replaces it, --out names another")
    plot_metrics(records, path)
    epochs = ", ".join(f"{name} ({own_records[-1]['epoch']} epochs)" for name, own_records in records.items())
    print(f"{epochs}: {path}")
    return 0


def run_names(runs: Sequence[Path]) -> dict[str, Path]:
    """What each run is called in the legend: its folder's name, or the whole path where two share that.

    Raises ValueError for a run that is given twice.
    """
    paths = [run.resolve() for run in runs]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ValueError(f"{runs[number]} is given twice")
    names = [path.name for path in paths]
    return {name if names.count(name) == 1 else str(run): run for name, run in zip(names, runs, strict=True)}


def read_run(run: Path) -> list[dict[str, Any]]:
    """The records of a run, by epoch. Raises FileNotFoundError, or ValueError where there is none."""
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such folder of a run")
    path = run / METRICS
    if not path.is_file():
        raise FileNotFoundError(f"{run}: has no {METRICS}; is it the folder of a training, outputs/<exp_name>?")
    records = read_metrics(path)
    if not records:
        raise ValueError(f"{path}: no epoch is recorded in it yet")
    return sorted(records, key=lambda record: record["epoch"])


if __name__ == "__main__":
    sys.exit(main())
