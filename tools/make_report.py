#!/usr/bin/env python3
"""Write report.html, a self-contained page with everything that a run has written.

    python tools/make_report.py outputs/quickstart

Configuration, environment, training curves, AP, precision over recall, depth errors, frames with detections. Training
writes this page at its end (trainer.report). The page names what is missing, such as labels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.pipeline.report import NAME, write_report
from lib.pipeline.report_sections import find_evaluations
from lib.system.commands import run_command, setup_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="outputs/RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {NAME} in that folder, which is replaced")
    results = "the evaluation to show, RUN/results/<checkpoint>/<split>; default: the newest one"
    parser.add_argument("--results", type=Path, metavar="DIR", help=results)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE, also by a page without evaluation")
    args = parser.parse_args(argv)
    return run_command(lambda: make_report(args.run, args.out, args.results, args.overwrite))


def make_report(run_dir: Path, out: Path | None, results: Path | None, overwrite: bool) -> None:
    """Check the arguments and write the page. Raises FileNotFoundError or ValueError, naming the option or file."""
    setup_logging()
    if out is not None and out.is_dir():
        raise ValueError(f"--out {out}: is a folder; give the name of a file")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must end in .html, got {out.name!r}")
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"{out} exists already; --overwrite replaces it")
    if results is not None and not (results / "data").is_dir():
        raise FileNotFoundError(f"--results {results}: has no data/; expected RUN/results/<checkpoint>/<split>")
    newest = results or next(reversed(find_evaluations(run_dir)), None)
    path = write_report(run_dir, newest, out=out, replace=overwrite)
    print(f"{path.stat().st_size / 1e6:.1f} MB: {path}")


if __name__ == "__main__":
    sys.exit(main())
