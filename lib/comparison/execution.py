"""Planned runs are trained, each in a process of its own, several at a time on this machine. Free of torch."""

import logging
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from ..system.interruption import Interrupted, Interruption, signal_name
from .planning import PlannedRun

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""how often a signal is looked for"""


@dataclass(frozen=True)
class Slot:
    """A place where one run at a time is trained."""

    name: str
    environment: Mapping[str, str]
    """the whole environment of the process"""


class RunExecutor:
    """Trains runs in their order, one at a time on each slot.

    Args:
        command: returns the command line of a run; with ValueError or OSError the run has failed.
        out: working directory of the processes; their output is appended to out/logs/<run>.log.
    """

    def __init__(self, slots: Sequence[Slot], command: Callable[[PlannedRun], list[str]], out: Path) -> None:
        self.command, self.out = command, out
        self._threads = len(slots)
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped = False
        self._mutex = threading.Lock()
        """held while a process is started, and while all are stopped, so that none is missed"""

    def train(
        self, runs: Sequence[PlannedRun], interruption: Interruption, on_finished: Callable[[PlannedRun], str]
    ) -> list[str]:
        """Train those of ``runs`` that are not finished. Returns a line for each one that failed.

        A failure does not affect the other runs. After a signal the running processes save and end, then Interrupted is
        raised.

        Args:
            on_finished: called in this thread after each run; returns what to log about it.
        """
        unfinished, failures = [run for run in runs if not run.finished], []
        done, total = len(runs) - len(unfinished), len(runs)
        bar = tqdm(desc="runs", total=total, initial=done, unit="run", dynamic_ncols=True, leave=False, disable=None)
        with bar, interruption.deferred(), ThreadPoolExecutor(self._threads) as pool:
            try:
                pending = {pool.submit(self._train_one, run): run for run in unfinished}
                while pending:
                    if interruption.signum is not None:
                        raise Interrupted(interruption.signum, "the same command goes on where this stopped")
                    wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                    for future in [future for future in pending if future.done()]:
                        run = pending.pop(future)
                        try:
                            future.result()
                            _log(f"{run.name}: finished; {on_finished(run)}")
                        except (ValueError, OSError) as error:  # also a broken ap.json, or a full disk
                            failures.append(f"{run.name}: {error}")
                            _log(f"failed: {failures[-1]}")
                        bar.update()
            finally:
                self._stop()
        return failures

    def log_file(self, run: PlannedRun) -> Path:
        """The output of a run's processes."""
        return self.out / "logs" / f"{run.name}.log"

    def _train_one(self, run: PlannedRun) -> None:
        """Returns once the run is finished, or stopped. Raises ValueError or OSError where it failed."""
        slot = self._free.get()
        try:
            process = self._start(run, slot)
            if process is None:
                return
            status = process.wait()
            with self._mutex:
                del self._running[run.name]
        finally:
            self._free.put(slot)
        if status != 0 or not run.finished:
            how = f"ended by {signal_name(-status)}" if status < 0 else f"status {status}"
            log = self.log_file(run)
            raise ChildProcessError(f"{how}: {_last_line(log)} (all output: {log})")

    def _start(self, run: PlannedRun, slot: Slot) -> subprocess.Popen[bytes] | None:
        command, log = self.command(run), self.log_file(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._mutex, log.open("ab") as file:
            if self._stopped:
                return None
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode())
            file.flush()
            # a session of its own: Ctrl-C reaches this process alone, which then stops the run
            process = subprocess.Popen(
                command,
                cwd=self.out,
                env=dict(slot.environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running[run.name] = process
        resumed = f" from epoch {run.epochs_done} on" if run.epochs_done else ""
        _log(f"{run.name}: started on {slot.name}{resumed}; log: {log}")
        return process

    def _stop(self) -> None:
        """Start no more processes and have the running ones save and end; the pool waits for them."""
        with self._mutex:
            self._stopped = True
            for name, process in self._running.items():
                process.terminate()
                _log(f"{name}: waiting until it has saved")


def _log(text: str) -> None:
    with tqdm.external_write_mode():  # removes the bar, and draws it again below
        logger.info("%s", text)


def _last_line(log: Path) -> str:
    """The last line of a run's output, without progress bars."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        lines = [line.rpartition("\r")[2].strip() for line in file.read().decode(errors="replace").split("\n")]
    return next((line for line in reversed(lines) if line), "")
