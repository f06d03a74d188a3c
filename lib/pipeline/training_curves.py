"""Training curves of one or several runs as an image."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.metrics import read_metrics
from ..ops.text import counted
from ..system.files import write_file
from ..visualization.curves import metric_panels
from ..visualization.panels import check_format, render_panels

logger = logging.getLogger(__name__)
METRICS, CURVES = "metrics.jsonl", "curves.png"


def plot_runs(runs: Sequence[Path], out: Path | None = None, overwrite: bool = False) -> None:
    """Draw the curves of the runs in these folders as an image.

    ``out``: a .png, .pdf or .svg file; default: curves.png, in the folder of a single run, where it is always replaced,
    or else in the working directory. Another file is replaced only with ``overwrite``.

    Raises FileNotFoundError or ValueError, naming the run or the file.
    """
    own = runs[0] / CURVES if len(runs) == 1 else None
    path = out or own or Path(CURVES)
    check_format(path, "--out")
    records = {name: _read_run(run) for name, run in name_runs(runs).items()}
    if path.exists() and path != own and not overwrite:
        raise ValueError(f"{path} exists already; --overwrite replaces it, --out names another")
    write_file(path, render_panels(metric_panels(records), path.suffix, shared_legend=len(runs) > 1))
    epochs = ", ".join(f"{name} ({counted(entries[-1]['epoch'], 'epoch')})" for name, entries in records.items())
    logger.info("%s: %s", epochs, path)


def name_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """Label of each run in the legend: the name of its folder, or the whole path if two folders have that name.

    Raises ValueError for a run that is given twice.
    """
    paths = [run.resolve() for run in runs]
    names = [path.name for path in paths]
    for run, path in zip(runs, paths, strict=True):
        if paths.count(path) > 1:
            raise ValueError(f"{run} is given twice")
    return {name if names.count(name) == 1 else str(run): run for name, run in zip(names, runs, strict=True)}


def _read_run(run: Path) -> list[dict[str, Any]]:
    """The records of a run, by epoch. Raises FileNotFoundError, or ValueError if there is none."""
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such folder of a run")
    path = run / METRICS
    if not path.is_file():
        raise FileNotFoundError(f"{run}: has no {METRICS}; is it the folder of a training, outputs/<exp_name>?")
    records = read_metrics(path)
    if not records:
        raise ValueError(f"{path}: no epoch is recorded in it yet")
    return sorted(records, key=lambda record: record["epoch"])
