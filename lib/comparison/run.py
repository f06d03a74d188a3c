"""A whole comparison: plan the runs, train those that are missing, write the tables."""

import logging
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import load_config
from ..evaluation.bootstrap import MAX_REPLICATES
from ..ops.text import counted
from ..system.commands import setup_logging
from ..system.files import write_file
from ..system.interruption import Interruption
from ..system.machine import available_cores
from .execution import RunExecutor, Slot
from .figures import main_figures, read_figures
from .planning import PlannedRun, arms_over, check_data, parse_seeds, plan_runs, read_arms
from .plot import plot_comparison
from .resampling import Resampled, resample_runs
from .slurm import JobOptions, SlurmJobs, parse_options
from .statistics import LEVEL
from .table import Comparison

logger = logging.getLogger(__name__)

NOTES = """\
n: runs that have the figure; '4 of 5': one of 5 finished runs has none (no depth error without detections, for example)
sd: sample standard deviation of the runs
difference: the arm minus the first arm ({first}); mean over the seeds that both have finished ("pairs"), with its
{level:.0%} interval by Student's t ('-': below 2 seeds)
the other intervals: a bootstrap over the drives or frames of the split, with the same draws for all runs; {bootstrap}
An interval over seeds says nothing about other frames, and one over drives or frames nothing about other seeds.
Each interval is valid by itself: of 20 comparisons without any difference, one interval is expected to miss 0.
"""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The options of tools/compare.py. Raises ValueError for values that are not accepted."""

    config: Path
    arms: Sequence[str] = ()  # names in ``arms_file``; or
    over: str | None = None  # 'section.key=a,b,c': an arm for each value
    arms_file: Path
    out: Path
    train_script: Path  # tools/train_val.py
    environment: Mapping[str, str]  # of the processes that train
    seeds: str = "5"  # 1 to 5; or such as '6-10'
    overrides: Sequence[str] = ()
    gpus: Sequence[int] = ()
    jobs: int | None = None
    slurm: Sequence[str] | None = None  # 'name=value' of sbatch options: one job a run
    plan: bool = False  # give the commands of the runs instead of training them
    report_only: bool = False
    bootstrap: int = 1000  # replicates; 0: none

    def __post_init__(self) -> None:
        parse_seeds(self.seeds)
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs must be >= 1, got {self.jobs}")
        if self.bootstrap and not 2 <= self.bootstrap <= MAX_REPLICATES:
            raise ValueError(f"--bootstrap must be 0 (none) or 2 to {MAX_REPLICATES}, got {self.bootstrap}")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out must be a folder, {self.out} is a file")
        if bool(self.arms) == bool(self.over):
            raise ValueError("one of --arms and --over is needed: names of arms, or a key with its values")
        if self.plan and self.report_only:
            raise ValueError("--plan and --report-only do not go together: one command a call")


def compare(options: CompareOptions, interruption: Interruption) -> tuple[str, list[str]]:
    """Train what is missing, unless ``options.report_only``; write the tables and the image of the finished runs.

    Returns the main figures and where the rest is, and a line for each run that failed. With ``options.plan`` nothing
    is trained or written, and the first is the commands of the missing runs, one on each line.

    Raises FileNotFoundError or ValueError for what cannot be run or read, and Interrupted after a signal.
    """
    job_options = None if options.slurm is None else parse_options(options.slurm)
    runs = _plan(options, job_options)
    if options.report_only:
        if not options.out.is_dir():
            raise FileNotFoundError(f"{options.out}: no such folder of a comparison")
        return _write_report(options, runs), []
    check_data(runs)
    out, base = runs[0].working_dir, options.config.resolve()

    def command(run: PlannedRun) -> list[str]:
        if load_config(base, run.overrides) != run.config:
            raise ValueError(f"{base} has changed since this command was started")
        run.require_same_configuration()
        script = str(options.train_script)
        return [sys.executable, script, "--config", str(base), "--resume", "--set", *run.overrides]

    if options.plan:
        folder = shlex.quote(str(out))
        commands = [shlex.join(command(run)) for run in runs if not run.finished]
        return "\n".join(f"mkdir -p {folder} && cd {folder} && {each}" for each in commands), []
    if job_options is None:
        executor: RunExecutor | SlurmJobs = RunExecutor(slots_for(options), command, out)
    else:
        executor = SlurmJobs(job_options, command, out)
    setup_logging(out / "logs" / "compare.log")
    logger.info("%s, %d of them finished; %s", counted(len(runs), "run"), sum(run.finished for run in runs), out)

    def on_finished(run: PlannedRun) -> str:
        _write_report(options, runs, final=False)
        first = main_figures(run.config.dataset.evaluated_classes)[0]
        return f"{first} {read_figures(run).get(first, math.nan):.2f}".replace("nan", "-")

    failures = executor.train(runs, interruption, on_finished)
    return _write_report(options, runs), failures


def slots_for(options: CompareOptions) -> list[Slot]:
    """Where runs are trained at the same time. Raises ValueError for a GPU that this process does not see."""
    gpus, number = options.gpus, len(options.gpus) or options.jobs or 1
    shared = {**options.environment}
    if number > 1:
        shared.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // number)))
    if not gpus:
        return [Slot("the CPU" if options.jobs else "the devices of trainer.gpu_ids", shared)] * number
    from torch import cuda  # imported here: it takes seconds, and all else is free of torch

    # a run that does not find its GPU would train on the CPU; and a scheduler may have set the variable already
    visible = [name.strip() for name in shared.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = visible or [str(k) for k in range(cuda.device_count())]
    for gpu in gpus:
        if not 0 <= gpu < cuda.device_count():
            raise ValueError(f"--gpus: no GPU {gpu}; this process sees {cuda.device_count()}, counted from 0")
    return [Slot(f"GPU {gpu}", {**shared, "CUDA_VISIBLE_DEVICES": names[gpu]}) for gpu in gpus]


def _plan(options: CompareOptions, job_options: JobOptions | None) -> list[PlannedRun]:
    """All runs, checked; nothing is written."""
    device = ["trainer.gpu_ids=[0]"] if options.gpus else ["trainer.gpu_ids=[]"] if options.jobs else []
    if job_options is not None and job_options.gpus:
        device = [f"trainer.gpu_ids={list(range(job_options.gpus))}"]
    arms = arms_over(options.over) if options.over else read_arms(options.arms_file, options.arms)
    runs = plan_runs(options.config, arms, parse_seeds(options.seeds), options.overrides, device, options.out.resolve())
    for run in runs:
        run.require_same_configuration()
    return runs


def _write_report(options: CompareOptions, runs: Sequence[PlannedRun], final: bool = True) -> str:
    """``final``: with what takes seconds, the bootstrap and the image."""
    out, classes = runs[0].working_dir, runs[0].config.dataset.evaluated_classes
    arms = tuple(dict.fromkeys(run.arm for run in runs))
    seeds = tuple(dict.fromkeys(run.seed for run in runs))
    finished = [run for run in runs if run.finished]
    figures = {(run.arm, run.seed): read_figures(run) for run in finished}
    drawn = Resampled("none: written after the last run", "", {})
    if final:
        pairs = [(run, figures[run.arm, run.seed]) for run in finished]
        drawn = resample_runs(pairs, options.bootstrap) if options.bootstrap else Resampled("none", "", {})
    comparison = Comparison(arms, seeds, figures, drawn.runs, drawn.unit)
    main = [name for name in main_figures(classes) if name in comparison.figures]
    all_figures = main + [name for name in comparison.figures if name not in main]
    head, notes = _head(options, runs), NOTES.format(level=LEVEL, first=arms[0], bootstrap=drawn.description)
    write_file(out / "comparison.txt", f"{head}\n\n{notes}\n{comparison.table(all_figures)}\n".encode())
    write_file(out / "comparison.csv", comparison.to_csv().encode())
    write_file(out / "runs.csv", comparison.runs_to_csv().encode())
    for suffix, form in (("md", "github"), ("tex", "latex_booktabs")) if main else ():
        about, table = f"{head}\n\n{notes}".splitlines(), comparison.formatted(main, form)
        parts = ["  \n".join(about), table] if suffix == "md" else ["".join(f"% {line}\n" for line in about), table]
        write_file(out / f"comparison.{suffix}", "\n\n".join(parts).encode())
    tables = "comparison.csv" + ", .md, .tex" * bool(main)
    files = f"{out / 'comparison.txt'} (all {len(all_figures)} figures), {tables}, runs.csv"
    if main and final:
        panels = [name for name in main_figures(classes[:1]) if name in main]
        write_file(out / "comparison.png", plot_comparison(comparison, panels))
        files += ", comparison.png"
    return f"{head}\n\n{comparison.table(main)}\n\n{notes}\n{files}"


def _head(options: CompareOptions, runs: Sequence[PlannedRun]) -> str:
    """What is compared, and which runs are missing."""
    lines = [f"{options.config} {' '.join(options.overrides)}".rstrip()]
    lines.append(f"split {runs[0].config.tester.split}, after the last epoch, seeds {runs[0].seed} to {runs[-1].seed}")
    lines.append("AP in percent: more is better; depth errors: less is better")
    lines += dict.fromkeys(f"  {run.arm}: {' '.join(run.changes) or 'no changes'}" for run in runs)
    missing = [run for run in runs if not run.finished]
    lines.append(f"finished: {len(runs) - len(missing)} of {counted(len(runs), 'run')}")
    if missing:
        epochs = [f"{run.epochs_done} of {counted(run.config.trainer.max_epoch, 'epoch')}" for run in missing]
        names = [f"{run.name} ({done})" for run, done in zip(missing, epochs, strict=True)]
        lines.append(f"missing: {', '.join(names)}")
    return "\n".join(lines)
