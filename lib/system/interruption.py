"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal): finish the step and save, or end at once outside a step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])  # not on Windows


class Interrupted(BaseException):
    """A signal ends the run. BaseException, so that ``except Exception`` does not swallow it."""

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
    """Context manager that handles the signals, except those that the process was started to ignore (nohup).

    Outside :meth:`deferred` a signal raises :class:`Interrupted` at once. Inside, it is only stored in ``signum``, for
    the loop to check. After the first Ctrl-C the default handler is restored: the next one ends the process at once.
    """

    def __init__(self, announce: bool = True) -> None:
        """``announce``: print a line when a signal arrives; one of several ranks should."""
        self.announce = announce
        self.signum: int | None = None
        self._deferring = False
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
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
        """Store signals instead of raising Interrupted, during a step or while a file is written."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, signum: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that received the signal while it was forked
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.signum = signum  # first: Python drops an exception that is raised in a destructor or a fork's hook
        if not self._deferring:
            raise Interrupted(signum)
        again = "; Ctrl-C again quits at once" if signum == signal.SIGINT else ""
        if self.announce:  # not by logging: the signal may have interrupted a logging call
            with contextlib.suppress(OSError):  # the terminal may be closed
                os.write(2, f"\n{signal_name(signum)}: finishing this step, then saving{again}\n".encode())


_active: list[Interruption] = []


def _restore_in_child() -> None:
    # Loaders and pools end their processes with SIGTERM. Python runs a handler only between instructions: a child that
    # enters a blocking system call just after the signal would never end. The default handler ends it at once.
    if _active:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore_in_child)
