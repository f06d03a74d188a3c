"""report.html: one page with everything that a run has written."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..config import Config, load_config
from ..datasets import KITTI
from ..engine.metrics import read_metrics
from ..ops.text import counted
from ..system.environment import read_starts
from ..system.files import write_file
from ..visualization.html_page import build_page
from . import report_sections as section
from .evaluation import Figures
from .report_evaluation import broken_section, evaluation_sections

logger = logging.getLogger(__name__)
NAME = "report.html"


def report_after_training(run_dir: Path, results: Path, dataset: KITTI, figures: Figures | None = None) -> None:
    """:func:`write_report` at the end of a training. An error of any kind becomes a warning.

    Checkpoints and results are complete by then; the training must not fail because of a page about them.
    """
    try:
        logger.info("all on one page: %s", write_report(run_dir, results, dataset, figures=figures))
    except Exception as error:
        logger.warning("%s was not written: %s: %s", run_dir / NAME, type(error).__name__, error)
        logger.debug("the error's origin:", exc_info=error)


def write_report(
    run_dir: Path,
    results: Path | None,
    dataset: KITTI | None = None,
    out: Path | None = None,
    figures: Figures | None = None,
    replace: bool = True,
) -> Path:
    """Write the page of a run; returns its path. Raises FileNotFoundError or ValueError if ``run_dir`` is not a run's.

    ``results``: the evaluation to show, ``run_dir/results/<checkpoint>/<split>``; None: no evaluation.
    ``dataset``: the split of ``results``; None: built from the configuration.
    ``out``: where to write the page; None: ``run_dir/report.html``.
    ``figures``: of ``results``; None: computed from the files of ``results``.
    ``replace``: an existing page may be replaced by one without the evaluation, where its data are missing; otherwise
    that is a ValueError. Where there is no page yet, it is a warning.
    """
    if not run_dir.is_dir():
        raise FileNotFoundError(f"{run_dir}: no such folder of a run")
    if not (run_dir / "config.yaml").is_file():
        raise FileNotFoundError(f"{run_dir}: has no config.yaml; is it the folder of a run, outputs/<exp_name>?")
    config = load_config(run_dir / "config.yaml")
    records, starts = read_metrics(run_dir / "metrics.jsonl"), read_starts(run_dir / "environment.json")
    name = config.general.exp_name or run_dir.resolve().name
    path = out or run_dir / NAME
    try:
        result, *details = evaluation_sections(config, results, dataset, figures)
    except (OSError, ValueError) as error:  # for example, the data set was moved: the other sections do not need it
        if path.exists() and not replace:
            raise ValueError(f"{path} is kept, since the evaluation cannot be shown now: {error}") from None
        logger.warning("%s: the evaluation cannot be shown: %s", path, error)
        result, *details = [broken_section(results, error)]
    run = [section.configuration(config), section.environment(starts), section.training_curves(name, records)]
    sections = [result, *run, *details, section.files(run_dir)]
    page = build_page(f"Run {name}", _describe_progress(run_dir, config, len(records), starts), sections)
    write_file(path, page.encode(errors="replace"))
    return path


def _describe_progress(run_dir: Path, config: Config, epochs: int, starts: Sequence[dict[str, Any]]) -> str:
    """Epochs, and when they were trained: from the first start to the last change of metrics.jsonl."""
    parts = [f"{epochs} of {counted(config.trainer.max_epoch, 'epoch')}"]
    if starts and epochs:
        started = datetime.fromisoformat(starts[0]["started"])
        ended = datetime.fromtimestamp(int((run_dir / "metrics.jsonl").stat().st_mtime))
        end = "ended" if epochs >= config.trainer.max_epoch else "last epoch ended"
        parts += [f"started {started}", f"{end} {ended}", f"{ended - started} in all"]
    if len(starts) > 1:
        parts.append(f"in {len(starts)} starts, pauses included")
    return ", ".join(parts) + "."
