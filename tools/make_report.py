#!/usr/bin/env python3
"""Write report.html: one page, complete in itself, with all that a run has to show.

    python tools/make_report.py outputs/quickstart

Configuration, environment, training curves, AP, precision over recall, depth errors, the best and the worst frames. A
training writes it at its end (trainer.report). What is not there, such as labels, the page says.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.config import Config, load_config
from lib.datasets.kitti import KITTI
from lib.engine.metrics import read_metrics
from lib.pipeline import report_run as run_sections
from lib.pipeline.report_evaluation import evaluation
from lib.pipeline.run_log import read_run_log
from lib.system.commands import run_command, setup_logging
from lib.system.files import write_file
from lib.visualization.html_page import build_page

logger = logging.getLogger("lib.tools.make_report")
NAME = "report.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="outputs/RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {NAME} in that folder, written anew")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="the evaluation to show, RUN/results/<checkpoint>/<split>; default: the one that was made last",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier FILE")
    args = parser.parse_args(argv)
    return run_command(lambda: make_report(args.run, args.out, args.results, args.overwrite))


def make_report(run_dir: Path, out: Path | None, results: Path | None, overwrite: bool = False) -> int:
    """Raises FileNotFoundError or ValueError, naming the file, for a folder that is none of a run."""
    setup_logging()
    if out is not None and out.is_dir():
        raise ValueError(f"--out {out}: is a folder; give the name of a file")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must end in .html, got {out.name!r}")
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"{out} exists already; --overwrite replaces it")
    if results is not None and not (results / "data").is_dir():
        raise FileNotFoundError(f"--results {results}: has no data/; expected RUN/results/<checkpoint>/<split>")
    path = write_report(run_dir, results or newest_evaluation(run_dir), None, out)
    print(f"{path.stat().st_size / 1e6:.1f} MB: {path}")
    return 0


def report_after_training(run_dir: Path, results: Path, dataset: KITTI) -> None:
    """:func:`write_report` at the end of a training; where it fails, a warning says why."""
    try:
        logger.info("all on one page: %s", write_report(run_dir, results, dataset))
    # Whatever goes wrong here: checkpoints, metrics and results are written, and a page about them must not make a
    # training that took days look like one that failed. tools/make_report.py shows the error again.
    except Exception as error:
        logger.warning("%s was not written: %s: %s", run_dir / NAME, type(error).__name__, error)
        logger.debug("the error's origin:", exc_info=error)


def newest_evaluation(run_dir: Path) -> Path | None:
    """The results/<checkpoint>/<split> that was written last; None where nothing was evaluated."""
    found = run_sections.evaluations(run_dir)
    return max(found, key=lambda folder: (folder / "data").stat().st_mtime, default=None)


def write_report(run_dir: Path, results: Path | None, dataset: KITTI | None, out: Path | None = None) -> Path:
    """Gather what there is and write the page; returns its path.

    ``results``: the evaluation to show. ``dataset``: its split; None: look for it where the configuration says. Raises
    FileNotFoundError or ValueError where the folder is none of a run.
    """
    config = _read_config(run_dir / "config.yaml")
    name = config.general.exp_name or run_dir.resolve().name
    records = read_metrics(run_dir / "metrics.jsonl")
    log = read_run_log(run_dir / "train.log")
    result, *details = evaluation(config, results, dataset)
    sections = [
        result,
        run_sections.configuration(config),
        run_sections.environment(log.versions),
        run_sections.curves(name, records),
        *details,
        run_sections.files(run_dir),
    ]
    said = [f"{len(records)} of {config.trainer.max_epoch} epochs"]
    if log.started and log.ended:
        end = "ended" if len(records) >= config.trainer.max_epoch else "last message"
        said += [f"started {log.started}", f"{end} {log.ended}", f"{log.duration} in all"]
    if log.starts > 1:
        said.append(f"in {log.starts} starts, pauses included")
    path = out or run_dir / NAME
    write_file(path, build_page(f"Run {name}", ", ".join(said) + ".", sections).encode(errors="replace"))
    return path


def _read_config(path: Path) -> Config:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder of a run")
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent}: has no {path.name}; is it the folder of a run, outputs/<exp_name>?")
    return load_config(path)


if __name__ == "__main__":
    sys.exit(main())
