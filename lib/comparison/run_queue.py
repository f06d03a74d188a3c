"""Planned runs, each in a process of its own, a few at a time. Free of torch.

Several queues, also on several hosts that share the folder, may work off the same runs: each run is claimed before it
is started, and one that another process has claimed, or trains, is left to it and looked at again later.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..system.interruption import Interrupted, Interruption, signal_name
from ..system.lock import is_locked, lock
from .arms import PlannedRun

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
LOOK_SECONDS = 10.0
"""between two looks at what others do, which may ask a file server"""


@dataclass(frozen=True)
class Slot:
    """Where one run at a time runs."""

    name: str
    environment: Mapping[str, str]
    """of the process, all of it"""


@dataclass
class _Job:
    run: PlannedRun
    slot: Slot
    process: subprocess.Popen[bytes]
    claim: contextlib.ExitStack


class RunQueue:
    """Works off ``runs`` in their order.

    Args:
        command: of a run; ValueError and OSError make it one that failed.
        out: the runs' working directory; logs go to out/logs/.
        interruption: a signal has the running processes save and end.
        on_finished: is told of each run that is finished, here or elsewhere; returns what to say about it.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        slots: Sequence[Slot],
        command: Callable[[PlannedRun], list[str]],
        out: Path,
        interruption: Interruption,
        on_finished: Callable[[PlannedRun], str],
    ) -> None:
        self.runs, self.command, self.out = runs, command, out
        self.interruption, self.on_finished = interruption, on_finished
        self.waiting = [run for run in runs if not run.finished]
        self.free = list(slots)
        self.active: list[_Job] = []
        self.held: dict[str, float] = {}
        """runs that others have, and when to look at them again"""
        self.failures: list[str] = []

    def work_off(self) -> list[str]:
        """Until nothing is left. Returns a line for each run that failed; the others have gone on.

        Raises Interrupted after a signal, once the processes have saved and ended.
        """
        bar = tqdm(
            total=len(self.runs),
            initial=self._done(),
            desc="runs",
            unit="run",
            dynamic_ncols=True,
            leave=False,
            disable=None,  # where it is no terminal: what happens is said besides
        )
        with bar, self.interruption.deferred(), self._ended_in_any_case():
            shown = -LOOK_SECONDS
            while self.waiting or self.active:
                self._collect()
                if self.interruption.signum is not None:
                    raise Interrupted(self.interruption.signum, "the same command goes on where this stopped")
                self._start()
                if not bar.disable and time.monotonic() - shown >= LOOK_SECONDS:
                    shown = time.monotonic()
                    bar.n = self._done()
                    bar.set_postfix_str(", ".join(_progress(job.run) for job in self.active))
                time.sleep(POLL_SECONDS if self.waiting or self.active else 0)
        return self.failures

    def _done(self) -> int:
        return len(self.runs) - len(self.waiting) - len(self.active)

    def _collect(self) -> None:
        """See which processes have ended, and how."""
        for job in [job for job in self.active if job.process.poll() is not None]:
            self.active.remove(job)
            self.free.append(job.slot)
            run, status = job.run, job.process.returncode
            if status == 0 and run.finished:
                self._note_finished(run, "finished")
            elif status != 0 and is_locked(run.folder):  # by somebody who does not ask for claims
                self._leave(run)
                self.waiting.insert(0, run)
            else:
                how = f"ended by {signal_name(-status)}" if status < 0 else f"status {status}"
                self._fail(run, f"{how}: {_last_line(self.log(run))} (all of it: {self.log(run)})")
            job.claim.close()

    def _start(self) -> None:
        """Start what can be started in the free slots."""
        for run in list(self.waiting):
            if not self.free:
                return
            if time.monotonic() < self.held.get(run.name, 0.0):
                continue
            with contextlib.ExitStack() as claim:
                try:
                    claim.enter_context(lock(self.out / "claims" / run.name))
                except FileExistsError:
                    self._leave(run)
                    continue
                if is_locked(run.folder):
                    self._leave(run)
                    continue
                self.waiting.remove(run)
                if run.finished:
                    self._note_finished(run, "finished by another process")
                    continue
                try:
                    command = self.command(run)
                except (ValueError, OSError) as error:
                    self._fail(run, str(error))
                    continue
                self.active.append(self._begin(run, command, self.free.pop(0), claim))

    def _begin(self, run: PlannedRun, command: list[str], slot: Slot, claim: contextlib.ExitStack) -> _Job:
        log = self.log(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode())
            file.flush()
            # a session of its own: Ctrl-C goes to this process alone, which then has the run save and end
            process = subprocess.Popen(
                command,
                cwd=self.out,
                env=dict(slot.environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        begun = f" from epoch {run.epochs_done} on" if run.epochs_done else ""
        _say(f"{run.name}: started on {slot.name}{begun}; log: {log}")
        return _Job(run, slot, process, claim.pop_all())

    def _note_finished(self, run: PlannedRun, how: str) -> None:
        try:
            _say(f"{run.name}: {how}; {self.on_finished(run)}")
        except (ValueError, OSError) as error:  # a broken ap.json, a full disk: the other runs go on
            self._fail(run, str(error))

    def _fail(self, run: PlannedRun, why: str) -> None:
        self.failures.append(f"{run.name}: {why}")
        _say(f"failed: {self.failures[-1]}")

    def _leave(self, run: PlannedRun) -> None:
        if run.name not in self.held:
            _say(f"{run.name}: another process has it; looking at it again later")
        self.held[run.name] = time.monotonic() + LOOK_SECONDS

    @contextlib.contextmanager
    def _ended_in_any_case(self) -> Iterator[None]:
        """No process is left alone, whatever ends the block."""
        try:
            yield
        finally:
            for job in self.active:
                job.process.terminate()
            for job in self.active:
                _say(f"{job.run.name}: waiting until it has saved")
                job.process.wait()
                job.claim.close()

    def log(self, run: PlannedRun) -> Path:
        """What a run said."""
        return self.out / "logs" / f"{run.name}.log"


def _say(text: str) -> None:
    with tqdm.external_write_mode():  # takes the bar away, and draws it again below
        logger.info("%s", text)


def _progress(run: PlannedRun) -> str:
    return f"{run.name} {run.epochs_done}/{run.config.trainer.max_epoch} epochs"


def _last_line(log: Path) -> str:
    """Of what was said, progress bars left out."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        lines = [line.rpartition("\r")[2].strip() for line in file.read().decode(errors="replace").split("\n")]
    return next((line for line in reversed(lines) if line), "")
