"""Train planned runs, each in a process of its own, several in parallel on this machine. Free of torch."""

import logging
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ..system.interruption import Interrupted, Interruption, signal_name
from .planning import PlannedRun

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2  # how often processes and signals are checked


@dataclass(frozen=True)
class Slot:
    """A device, or a share of the CPU, that trains one run at a time."""

    name: str
    environment: Mapping[str, str]  # the whole environment of the process


class _Training(NamedTuple):
    run: PlannedRun
    slot: Slot
    process: subprocess.Popen[bytes]
    log: Path


class RunExecutor:
    """Trains runs in their order, one at a time on each slot.

    ``command`` returns the command line of a run; with ValueError or OSError the run has failed. ``out``: working
    directory of the processes; their output is appended to out/logs/<run>.log.
    """

    def __init__(self, slots: Sequence[Slot], command: Callable[[PlannedRun], list[str]], out: Path) -> None:
        self.command, self.out = command, out
        self._free = list(slots)
        self._running: list[_Training] = []

    def train(
        self, runs: Sequence[PlannedRun], interruption: Interruption, on_finished: Callable[[PlannedRun], str]
    ) -> list[str]:
        """Train those of ``runs`` that are not finished. Returns a line for each one that failed.

        A failure does not affect the other runs. ``on_finished`` is called after each run, and returns what to log
        about it. After a signal the running processes save and end, then Interrupted is raised.
        """
        waiting, failures = deque(run for run in runs if not run.finished), []
        with show_runs(len(runs), len(runs) - len(waiting)) as bar, interruption.deferred():
            try:
                while waiting or self._running:
                    if interruption.signum is not None:
                        raise Interrupted(interruption.signum, "run the same command again to continue")
                    ended = next((each for each in self._running if each.process.poll() is not None), None)
                    if ended is None and not (waiting and self._free):
                        time.sleep(POLL_SECONDS)
                        continue
                    run = ended.run if ended else waiting.popleft()
                    try:
                        if ended is None:
                            self._start(run)
                            continue
                        self._finish(ended)
                        log_above_bar(f"{run.name}: finished; {on_finished(run)}")
                    except (ValueError, OSError) as error:  # also a broken ap.json, or a full disk
                        failures.append(f"{run.name}: {error}")
                        log_above_bar(f"failed: {failures[-1]}")
                    bar.update()
            finally:
                self._stop()
        return failures

    def _start(self, run: PlannedRun) -> None:
        process, log = start_process(run.name, self.command(run), self.out, self._free[0].environment)
        slot = self._free.pop(0)
        self._running.append(_Training(run, slot, process, log))
        resumed = f" from epoch {run.epochs_done} on" if run.epochs_done else ""
        log_above_bar(f"{run.name}: started on {slot.name}{resumed}; log: {log}")

    def _finish(self, ended: _Training) -> None:
        """Free the slot of a process that has ended. Raises ChildProcessError if its run is not finished."""
        self._running.remove(ended)
        self._free.append(ended.slot)
        status = ended.process.returncode
        if status != 0 or not ended.run.finished:
            how = f"ended by {signal_name(-status)}" if status < 0 else f"status {status}"
            raise ChildProcessError(f"{how}: {last_line(ended.log)} (all output: {ended.log})")

    def _stop(self) -> None:
        """Have the running processes save and end, and wait for them."""
        for each in self._running:
            each.process.terminate()
            log_above_bar(f"{each.run.name}: waiting until it has saved")
        for each in self._running:
            each.process.wait()


def start_process(
    name: str, command: list[str], out: Path, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start ``command`` in ``out``, with its output appended to a log, which is returned too.

    ``environment``: all of it; None: that of this process.
    """
    log = out / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode())
        file.flush()
        # a session of its own: Ctrl-C reaches this process alone, which then stops the run
        process = subprocess.Popen(
            command,
            cwd=out,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, log


def show_runs(total: int, done: int) -> "tqdm[Any]":
    """A progress bar of runs."""
    return tqdm(desc="runs", total=total, initial=done, unit="run", dynamic_ncols=True, leave=False, disable=None)


def log_above_bar(text: str) -> None:
    """Log a line above the progress bar."""
    with tqdm.external_write_mode():  # removes the bar, and draws it again below
        logger.info("%s", text)


def last_line(log: Path) -> str:
    """The last line of a run's output, without progress bars."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        lines = [line.rpartition("\r")[2].strip() for line in file.read().decode(errors="replace").split("\n")]
    return next((line for line in reversed(lines) if line), "")
