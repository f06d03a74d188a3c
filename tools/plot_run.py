#!/usr/bin/env python3
"""Draw losses, learning rate, speed and AP of one or several runs over epochs, one panel for each quantity.

    python tools/plot_run.py outputs/monodle outputs/ddml --out compared.pdf

It also works while a run is training.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.pipeline.training_curves import CURVES, METRICS, plot_runs
from lib.system.commands import run_command, setup_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="outputs/RUN", help=f"folders with {METRICS}")
    out = f".png, .pdf or .svg; default: {CURVES}, in the folder of a single run (replaced), else in this one"
    parser.add_argument("--out", type=Path, metavar="FILE", help=out)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    args = parser.parse_args(argv)
    setup_logging()
    return run_command(lambda: plot_runs(args.runs, args.out, args.overwrite))


if __name__ == "__main__":
    sys.exit(main())
