"""Logging, progress bars and exit statuses of commands. Free of torch: some commands do not need it."""

import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

from tqdm import tqdm

from .interruption import Interrupted, Interruption

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


def setup_logging(log_file: Path | None = None, level: int = logging.INFO) -> None:
    """Log messages of ``level`` and above to the terminal, all messages also to the end of ``log_file``.

    Replaces the handlers of earlier calls. Messages since a call without ``log_file`` are written to the file too.
    """
    root = logging.getLogger()
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(level)
    console.setFormatter(_ConsoleFormatter("%(message)s"))
    memory: logging.Handler = MemoryHandler(1000, flushLevel=logging.CRITICAL + 1)  # kept for the next call
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        memory = _LogFile(log_file, encoding="utf-8", errors="backslashreplace")
        memory.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for handler in list(root.handlers):
        if getattr(handler, "_by_setup_logging", False):
            if isinstance(handler, MemoryHandler):
                handler.setTarget(memory)  # which gets its messages when it is closed
            root.removeHandler(handler)
            handler.close()
    for handler in (console, memory):
        handler._by_setup_logging = True  # type: ignore[attr-defined]
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger(__name__.partition(".")[0]).setLevel(logging.DEBUG)


class _LogFile(logging.FileHandler):
    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """One line where logging prints a traceback for each message, as on a full disk."""
        if not self._failed:
            self._failed = True
            sys.stderr.write(f"warning: {self.baseFilename} is not complete: {sys.exc_info()[1]}\n")


class _ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return ("warning: " if record.levelno == logging.WARNING else "") + super().format(record)


def show_progress(
    items: Iterable[Item], title: str, total: int | None = None, unit: str = "frame", **options: Any
) -> "tqdm[Item]":
    """``items`` with a progress bar, which changes rarely if stderr is no terminal, so that a log file stays readable.

    ``options``: tqdm's.
    """
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(items, title, total, unit=unit, mininterval=interval, **options)


def run_command(
    command: Callable[[], int | None],
    interruption: Interruption | None = None,
    report: Callable[[BaseException], None] = lambda error: None,
) -> int:
    """Call ``command``; an expected error becomes one line on stderr and an exit status.

    Args:
        interruption: entered around the command, which uses it to save its state after a signal. Without it SIGTERM
            ends the process at once.
        report: called with an error (not after a signal) before its line is written.

    Returns:
        the command's status, 0 for None; 2 for bad input and files that cannot be read or written (ValueError,
        OSError); 1 for a failed run (FloatingPointError: a loss is not finite; ConnectionError: another process of the
        run ended; no memory); 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, 141 where the reader of a pipe
        has ended.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as with >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        if hasattr(getattr(sys, name), "reconfigure"):  # file names may hold bytes that are no text
            getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        with interruption or contextlib.nullcontext():
            status = command() or 0
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        _drop_output(sys.stdout, sys.stderr)
        return 128 + 13  # as after SIGPIPE
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        logger.debug("out of memory:", exc_info=error)
        report(error)
        reason = str(error).strip().partition("\n")[0]
        sys.stderr.write(f"error: the memory does not suffice ({reason}); smaller batches or images need less\n")
        return 1
    except (ValueError, OSError, FloatingPointError) as error:
        logger.debug("the error's origin:", exc_info=error)
        report(error)
        sys.stderr.write(f"error: {_one_line(error)}\n")
        return 1 if isinstance(error, ConnectionError | FloatingPointError) else 2
    except (Interrupted, KeyboardInterrupt) as interrupt:
        interrupted = interrupt if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT)
        logger.debug("interrupted here:", exc_info=interrupt)
        if interruption is None or interruption.announce:
            with contextlib.suppress(OSError):  # the terminal may be closed
                sys.stderr.write(f"{interrupted}\n")
        return interrupted.status


def _drop_output(*streams: TextIO) -> None:
    """Send all further output nowhere: the program that read it has ended."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def outlast_output() -> Iterator[None]:
    """Go on where the terminal or the program behind a pipe ends, or the disk of a redirected output is full.

    For a training, whose messages are in its log file too.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _LastingStream(stream)) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


class _LastingStream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function: Callable[[], object]) -> None:
        try:
            function()
        except OSError as error:
            _drop_output(self._stream)
            logger.warning("the terminal or file that gets the output cannot be written to any more: %s", error)


def _is_out_of_memory(error: BaseException) -> bool:
    """numpy and Python raise MemoryError, torch a RuntimeError."""
    if isinstance(error, MemoryError):
        return True
    texts = ("not enough memory", "can't allocate memory", "out of memory", "Cannot allocate memory")
    return any(text in str(error) for text in texts)


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        text = f"{error.strerror}; the file is not known, maybe the output of this command"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:  # str(error): '[Errno 2] ..'
        text = f"{error.filename}: {error.strerror}"
    if text.startswith("Caught "):  # raised in a loader worker: torch puts the traceback before the message
        text = text.rstrip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
