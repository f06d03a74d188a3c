"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal): finish the step and save, or end at once outside of training."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])


class Interrupted(BaseException):
    """The run was asked to end. No Exception, so that nothing takes it for an error that can be handled."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum

    @property
    def status(self) -> int:
        """Exit status by the shell's convention: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"ended by {signal_name(self.signum)}" + (f"; {self.args[0]}" if self.args[0] else "")


def signal_name(signum: int) -> str:
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


class Interruption:
    """Catches the signals while it is entered, except one that the process was started to ignore (nohup).

    Outside :meth:`deferred` a signal raises :class:`Interrupted` on the spot. Inside, it is only noted in ``signum``,
    for the loop to look at. After the first Ctrl-C the next one has the system's own effect: the process ends at once.
    """

    def __init__(self, announce: bool = True) -> None:
        """``announce``: whether this process says so when a signal comes; one of several is enough."""
        self.announce = announce
        self.signum: int | None = None
        self._deferring = False
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            caught = [signum for signum in SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
            self._previous = {signum: signal.signal(signum, self._handle) for signum in caught}
            _active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if self in _active:
            _active.remove(self)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals wait until the end of the block (a step, a file being written)."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, signum: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child to which the signal came while it was being forked
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._deferring:
            raise Interrupted(signum)
        again = "; Ctrl-C again quits at once" if signum == signal.SIGINT else ""
        self.signum = signum
        if self.announce:  # not through logging: the signal may have come while a message was being written
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, f"\n{signal_name(signum)}: finishing this step, then saving{again}\n".encode())


_active: list[Interruption] = []


def _forget_in_child() -> None:
    # Loaders and pools end their processes with SIGTERM. A handler in Python is not run while a process waits inside a
    # system call that it entered just after the signal: it would wait forever.
    if _active:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
