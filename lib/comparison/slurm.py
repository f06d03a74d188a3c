"""Train planned runs as jobs of a Slurm cluster, through the package submitit. Free of torch.

All nodes must see the working directory and this project under the same paths.
"""

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import PROJECT_ROOT
from ..system.files import write_json
from ..system.interruption import Interrupted, Interruption
from .execution import last_line, log_above_bar, show_runs, start_process
from .planning import PlannedRun

POLL_SECONDS = 10.0  # between two looks at the queue
GRACE_SECONDS = 60.0  # after a job has left the queue: until then a network file system may not show its results
_MOST_TIMEOUTS = 1000  # a job that reaches its time limit saves and is queued again; each time it gets further
_SHORT = {"gpus": "gpus-per-node", "cpus": "cpus-per-task"}
_OWN = ("array", "output", "error", "signal", "requeue", "nodes", "ntasks", "ntasks-per-node", "gpus-per-task", "chdir")
"""options of sbatch that are set here, or that would start a run several times"""
_TIME = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)|(\d+)")  # [[days-]hours:]minutes:seconds, or minutes


@dataclass(frozen=True)
class JobOptions:
    """What each job asks Slurm for."""

    minutes: int
    """time limit"""
    parallel: int
    """largest number of jobs that run at the same time"""
    sbatch: dict[str, str]
    """the other options of sbatch, by their long names"""

    @property
    def cpus(self) -> int | None:
        """CPU cores of a job, where they are given."""
        return int(self.sbatch["cpus-per-task"]) if "cpus-per-task" in self.sbatch else None

    @property
    def gpus(self) -> int | None:
        """GPUs of a job, where they are given."""
        return int(self.sbatch["gpus-per-node"].rpartition(":")[2]) if "gpus-per-node" in self.sbatch else None


def parse_options(settings: Sequence[str]) -> JobOptions:
    """'name=value' of options of sbatch, such as partition=gpu time=12:00:00 gpus=1. 'array-parallelism' is the largest
    number of jobs at a time.

    Raises ValueError for a value that is not accepted, and where the time limit is missing.
    """
    options: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        key = name.strip("- ").replace("_", "-")
        key = _SHORT.get(key, key)
        if not (equals and re.fullmatch(r"[a-z][a-z-]*", key) and value):
            raise ValueError(f"--slurm {setting}: expected name=value, such as partition=gpu time=12:00:00 gpus=1")
        if key in _OWN:
            raise ValueError(f"--slurm {setting}: a job is one run on one machine, which sets this option itself")
        options[key] = value
    accepted = {
        "cpus-per-task": (r"[1-9]\d*", "a number of cores"),
        "gpus-per-node": (r"([\w.-]+:)?[1-9]\d*", "a number of GPUs, or TYPE:NUMBER"),
        "array-parallelism": (r"[1-9]\d*", "a number of jobs"),
    }
    for key, (pattern, what) in accepted.items():
        if key in options and not re.fullmatch(pattern, options[key]):
            raise ValueError(f"--slurm {key}={options[key]}: expected {what}")
    time_limit = options.pop("time", None)
    match = _TIME.fullmatch(time_limit or "")
    if not match:
        given = "the time limit of a job is missing" if time_limit is None else f"got time={time_limit}"
        raise ValueError(f"--slurm: {given}; expected time=MINUTES or time=[DAYS-]HOURS:MINUTES:SECONDS")
    days, hours, minutes, seconds, only_minutes = (int(part or 0) for part in match.groups())
    minutes += only_minutes + (days * 24 + hours) * 60 + (seconds > 0)
    return JobOptions(minutes, int(options.pop("array-parallelism", 256)), options)


class TrainingJob:
    """A run as what a job of submitit calls. At submitit's signal before the time limit the run saves, and Slurm queues
    the job again; it then continues, since the command contains --resume."""

    def __init__(self, name: str, command: list[str], out: Path) -> None:
        self.name, self.command, self.out = name, command, out
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        # Slurm sends submitit's signal, USR2, to all processes of the job; the run would end without saving
        command = ["sh", "-c", "trap '' USR2; exec \"$@\"", "sh", *self.command]
        process, log = start_process(self.name, command, self.out)
        self.process = process
        while process.poll() is None:
            time.sleep(0.2)
        if process.returncode:
            raise ChildProcessError(f"{self.name}: status {process.returncode}: {last_line(log)}")

    def checkpoint(self) -> Any:
        """Called by submitit, in a signal handler: ends the run and returns what is queued again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # Popen.wait may wait for its own lock here
        return DelayedSubmission(TrainingJob(self.name, self.command, self.out))


class SlurmJobs:
    """Submits runs as one array of jobs and waits until they have ended.

    ``command`` and ``out`` as for ``RunExecutor``. Job ids are kept in out/logs/slurm_jobs.json, so that the same
    command, started again, waits for jobs that are still in the queue. Raises ValueError without submitit or Slurm.
    """

    def __init__(self, options: JobOptions, command: Callable[[PlannedRun], list[str]], out: Path) -> None:
        try:
            import submitit
        except ImportError:
            raise ValueError("--slurm needs the package submitit: pip install submitit") from None
        self.command, self.out, self.job_file = command, out, out / "logs" / "slurm_jobs.json"
        setup, srun = [f"export PYTHONPATH={shlex.quote(str(PROJECT_ROOT))}:$PYTHONPATH"], []
        if options.cpus:
            srun = [f"--cpus-per-task={options.cpus}"]  # which srun does not take from sbatch since Slurm 22.05
            setup.append(f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{max(1, options.cpus // (options.gpus or 1))}}}")
        try:
            self.executor = submitit.SlurmExecutor(out / "logs" / "slurm", max_num_timeout=_MOST_TIMEOUTS)
        except RuntimeError as error:
            raise ValueError(f"--slurm: {error} For other schedulers there is --plan") from None
        parameters = {"job-name": out.name, "requeue": True, **options.sbatch}
        self.executor.update_parameters(
            time=options.minutes,
            array_parallelism=options.parallel,
            additional_parameters=parameters,
            setup=setup,
            srun_args=srun,
        )

    def train(
        self, runs: Sequence[PlannedRun], interruption: Interruption, on_finished: Callable[[PlannedRun], str]
    ) -> list[str]:
        """As ``RunExecutor.train``; after a signal the jobs stay in the queue."""
        waiting = {run.name: run for run in runs if not run.finished}
        failures: dict[str, str] = {}
        gone: dict[str, float] = {}  # run -> when its job was first missing in the queue, by time.monotonic
        with show_runs(len(runs), len(runs) - len(waiting)) as bar, interruption.deferred():
            jobs = self._submit(waiting, failures)
            while jobs:
                self._sleep(interruption, list(jobs.values()))
                active = self._active_jobs()
                if active is None:
                    log_above_bar("squeue does not answer; asking again")
                    continue
                now = time.monotonic()
                for name in [name for name, job in jobs.items() if job not in active]:
                    if waiting[name].finished:
                        del jobs[name]
                        bar.update()
                        try:
                            log_above_bar(f"{name}: finished; {on_finished(waiting[name])}")
                        except (ValueError, OSError) as error:
                            failures[name] = str(error)
                            log_above_bar(f"failed: {name}: {error}")
                    elif name not in gone:
                        log_above_bar(f"{name}: job {jobs[name]} has left the queue without a result")
                gone = {name: gone.get(name, now) for name, job in jobs.items() if job not in active}
                if len(gone) == len(jobs) and all(now - since >= GRACE_SECONDS for since in gone.values()):
                    failures |= {name: self._reason(name, job) for name, job in jobs.items()}
                    break  # until now, any of them could have been queued again
        return [f"{name}: {reason}" for name, reason in failures.items()]

    def _submit(self, waiting: dict[str, PlannedRun], failures: dict[str, str]) -> dict[str, str]:
        """Job ids by run: those still in the queue, and new ones."""
        known = self._read_jobs()
        active = self._active_jobs() if known else set()
        if active is None:
            reason = "squeue does not answer, so it is not known which jobs are still in the queue"
            raise ConnectionError(f"--slurm: {reason}; nothing was submitted")
        jobs = {name: known[name] for name in waiting if known.get(name) in active}
        new = []
        for name, run in waiting.items():
            if name not in jobs:
                try:
                    new.append(TrainingJob(name, self.command(run), self.out))
                except (ValueError, OSError) as error:
                    failures[name] = str(error)
        if new:
            from submitit.core.utils import FailedJobError

            try:
                submitted = self.executor.submit_array(new)
            except FailedJobError as error:
                raise ValueError(f"--slurm: {' '.join(str(error).split())}") from None
            jobs |= {job.name: each.job_id for job, each in zip(new, submitted, strict=True)}
            write_json(self.job_file, known | jobs)
        for name, job in jobs.items():
            log_above_bar(f"{name}: job {job}{' (submitted before)' if known.get(name) == job else ''}")
        return jobs

    def _read_jobs(self) -> dict[str, str]:
        if not self.job_file.is_file():
            return {}
        try:
            known = json.loads(self.job_file.read_text(encoding="utf-8"))
        except ValueError:
            known = None
        if not isinstance(known, dict):
            raise ValueError(f"{self.job_file}: expected run names and job ids; look with squeue, then delete it")
        return {str(name): str(job) for name, job in known.items()}

    def _active_jobs(self) -> set[str] | None:
        """Ids of this user's jobs that wait or run; None where Slurm does not answer."""
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return None if done.returncode else set(done.stdout.split())

    def _sleep(self, interruption: Interruption, jobs: list[str]) -> None:
        """Wait for the next look at the queue. Raises Interrupted after a signal."""
        end = time.monotonic() + POLL_SECONDS
        while time.monotonic() < end:
            if interruption.signum is not None:
                arrays = " ".join(dict.fromkeys(job.partition("_")[0] for job in jobs))
                advice = f"the jobs go on; the same command waits for them, `scancel {arrays}` ends them"
                raise Interrupted(interruption.signum, advice)
            time.sleep(min(0.2, POLL_SECONDS))

    def _reason(self, name: str, job: str) -> str:
        log = self.out / "logs" / f"{name}.log"
        said = last_line(log) if log.is_file() else "it has not started"
        return f"job {job} has ended: {said} (all output: {log}, {self.executor.folder}/{job}_0_log.err)"
