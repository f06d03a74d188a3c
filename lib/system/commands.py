"""What a command needs around its work: a log, and errors as one line. Free of torch, for the tools that need none."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from .interruption import Interrupted, Interruption

logger = logging.getLogger(__name__)


def setup_logging(log_file: Path | None = None, level: int = logging.INFO) -> None:
    """Messages from ``level`` on to the terminal and, down to DEBUG, to the end of ``log_file``.

    Replaces handlers made here before.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if getattr(handler, "_of_this_project", False):
            root.removeHandler(handler)
            handler.close()
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(level)
    console.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [console]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(log_file, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    for handler in handlers:
        handler._of_this_project = True  # type: ignore[attr-defined]
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("lib").setLevel(logging.DEBUG)


def progress_interval() -> float:
    """Seconds between updates of a progress bar: seldom where nobody watches, so that a log file stays readable."""
    return 0.1 if sys.stderr.isatty() else 30.0


def run_command(
    command: Callable[[], int],
    interruption: Interruption | None = None,
    report: Callable[[BaseException], None] = lambda error: None,
) -> int:
    """Run a tool's body; expected errors become one line on stderr and an exit status.

    Args:
        interruption: the body's own, where it has something to save when a signal comes; else SIGTERM just ends it.
        report: is told of an error (not of a signal) before it becomes a line.

    Returns:
        the body's status; 2 for bad input and files that cannot be read or written (ValueError, OSError); 1 for a
        run that failed on its own account (FloatingPointError: a loss that is not finite; ConnectionError: another
        process of the run died); 130 after Ctrl-C and 143 after SIGTERM.
    """
    origin: BaseException
    try:
        with interruption or contextlib.nullcontext():
            return command()
    except ConnectionError as error:
        status, message, origin = 1, _one_line(error), error
    except (ValueError, OSError) as error:
        status, message, origin = 2, _one_line(error), error
    except FloatingPointError as error:
        status, message, origin = 1, _one_line(error), error
    except (Interrupted, KeyboardInterrupt) as interrupt:
        interrupted = interrupt if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT)
        logger.debug("ended here:", exc_info=interrupt)
        if interruption is None or interruption.announce:
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stderr.write(f"{interrupted}\n")
        return interrupted.status
    logger.debug("the error's origin:", exc_info=origin)
    report(origin)
    sys.stderr.write(f"error: {message}\n")
    return status


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:  # else '[Errno 2] No such ..'
        text = f"{error.filename}: {error.strerror}"
    if text.startswith("Caught "):  # raised in a loader worker: torch puts its traceback before the message
        text = text.rstrip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
