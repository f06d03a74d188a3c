"""Train planned runs as jobs of a Slurm cluster, through the package submitit. Free of torch.

All nodes must see the working directory and this project under the same paths.
"""

import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..config import PROJECT_ROOT
from ..system.files import write_json
from ..system.interruption import Interrupted, Interruption
from .execution import last_line, log_above_bar, start_process
from .planning import PlannedRun

logger = logging.getLogger(__name__)

POLL_SECONDS = 10.0  # between two looks at the queue
_MOST_TIMEOUTS = 1000  # a job that reaches its time limit saves and is queued again; each time it gets further
_NAMES = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}  # short names of submitit's parameters
_TIME = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)|(\d+)")  # [[days-]hours:]minutes:seconds, or minutes


def parse_parameters(settings: Sequence[str]) -> dict[str, Any]:
    """'name=value' of sbatch options, such as partition=gpu time=12:00:00 gpus=1, as submitit's parameters.

    Raises ValueError for what is not of this form, and where the time limit is missing.
    """
    parameters: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        key = name.strip("- ").replace("-", "_")
        if not (equals and key and value):
            raise ValueError(f"--slurm {setting}: expected name=value, such as partition=gpu time=12:00:00 gpus=1")
        parameters[_NAMES.get(key, key)] = int(value) if value.isdecimal() else value
    match = _TIME.fullmatch(str(parameters.get("time", "")))
    if not match:
        given = f"got time={parameters['time']}" if "time" in parameters else "the time limit of a run is missing"
        raise ValueError(f"--slurm: {given}; expected time=MINUTES or time=[DAYS-]HOURS:MINUTES:SECONDS")
    days, hours, minutes, seconds, only_minutes = (int(part or 0) for part in match.groups())
    parameters["time"] = only_minutes + (days * 24 + hours) * 60 + minutes + (seconds > 0)
    return parameters


class TrainingJob:
    """A run as what a job of submitit calls. Before the time limit, and where a job is preempted, the run saves and
    Slurm queues the job again; it then continues, since the command contains --resume."""

    def __init__(self, name: str, command: list[str], out: Path) -> None:
        self.name, self.command, self.out = name, command, out

    def __call__(self) -> None:
        # Slurm sends submitit's signal, USR2, to all processes of the job; the run would end without saving
        command = ["sh", "-c", "trap '' USR2; exec \"$@\"", "sh", *self.command]
        self.process, log = start_process(self.name, command, self.out)
        while self.process.poll() is None:
            time.sleep(0.2)
        if self.process.returncode:
            raise ChildProcessError(f"{self.name}: status {self.process.returncode}: {last_line(log)}")

    def checkpoint(self) -> Any:
        """Called by submitit, in a signal handler: ends the run and returns what is queued again."""
        from submitit.helpers import DelayedSubmission

        self.process.terminate()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # Popen.wait could wait for its own lock here
        return DelayedSubmission(TrainingJob(self.name, self.command, self.out))


class SlurmJobs:
    """Submits runs as one array of jobs and waits until they have ended.

    ``command`` and ``out`` as for ``RunExecutor``. Job ids are kept in out/logs/slurm_jobs.json, so that the same
    command, started again, waits for jobs that are still in the queue. Raises ValueError without submitit or Slurm and
    for ``parameters`` that submitit does not know.
    """

    def __init__(self, parameters: dict[str, Any], command: Callable[[PlannedRun], list[str]], out: Path) -> None:
        try:
            import submitit
        except ImportError:
            raise ValueError("--slurm needs the package submitit: pip install submitit") from None
        self.command, self.out, self.job_file = command, out, out / "logs" / "slurm_jobs.json"
        setup = [f'export PYTHONPATH="{PROJECT_ROOT}:$PYTHONPATH"']
        if "cpus_per_task" in parameters:
            setup.append(f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{parameters['cpus_per_task']}}}")
        try:
            self.executor = submitit.SlurmExecutor(out / "logs" / "slurm", max_num_timeout=_MOST_TIMEOUTS)
            self.executor.update_parameters(
                **{"job_name": out.name, "additional_parameters": {"requeue": True}, "setup": setup} | parameters
            )
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"--slurm: {' '.join(str(error).split())}") from None

    def train(
        self, runs: Sequence[PlannedRun], interruption: Interruption, on_finished: Callable[[PlannedRun], str]
    ) -> list[str]:
        """As ``RunExecutor.train``; after a signal the jobs stay in the queue."""
        waiting = {run.name: run for run in runs if not run.finished}
        failures: dict[str, str] = {}
        jobs = self._submit(waiting, failures)
        options: dict[str, Any] = {"unit": "run", "dynamic_ncols": True, "leave": False, "disable": None}
        with (
            tqdm(desc="runs", total=len(runs), initial=len(runs) - len(waiting), **options) as bar,
            interruption.deferred(),
        ):
            while jobs:
                self._sleep(interruption, list(jobs.values()))
                active = self._active_jobs()
                if active is None:
                    continue
                for name in [name for name in jobs if jobs[name] not in active and waiting[name].finished]:
                    try:
                        log_above_bar(f"{name}: finished; {on_finished(waiting[name])}")
                    except (ValueError, OSError) as error:
                        failures[name] = str(error)
                    del jobs[name]
                    bar.update()
                if not active.intersection(jobs.values()):  # a job that has failed may be queued again until then
                    failures |= {name: self._reason(name, job) for name, job in jobs.items()}
                    break
        return [f"{name}: {reason}" for name, reason in failures.items()]

    def _submit(self, waiting: dict[str, PlannedRun], failures: dict[str, str]) -> dict[str, str]:
        """Job ids by run: those still in the queue, and new ones."""
        known = json.loads(self.job_file.read_text()) if self.job_file.is_file() else {}
        active = self._active_jobs() or set()
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

    def _active_jobs(self) -> set[str] | None:
        """Ids of this user's jobs that wait or run; None where Slurm does not answer."""
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            log_above_bar(f"squeue: {done.stderr.strip()}; asking again")
            return None
        return set(done.stdout.split())

    def _sleep(self, interruption: Interruption, jobs: list[str]) -> None:
        """Wait for the next look at the queue. Raises Interrupted after a signal."""
        end = time.monotonic() + POLL_SECONDS
        while time.monotonic() < end:
            if interruption.signum is not None:
                arrays = " ".join(dict.fromkeys(job.partition("_")[0] for job in jobs))
                advice = f"the jobs go on; the same command waits for them, `scancel {arrays}` ends them"
                raise Interrupted(interruption.signum, advice)
            time.sleep(0.2)

    def _reason(self, name: str, job: str) -> str:
        log = self.out / "logs" / f"{name}.log"
        said = last_line(log) if log.is_file() else "it has not started"
        return f"job {job} has ended: {said} (all output: {log}, {self.executor.folder}/{job}_0_log.err)"
