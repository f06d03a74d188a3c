"""A lock on a run's folder: only one process at a time writes to it."""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)
RETRY_SECONDS = 0.2
"""longer than is_locked holds its own lock"""


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Lock ``run_dir`` until the end of the block or of the process. Raises FileExistsError if another run has it."""
    path = run_dir / "lock"
    for last_try in (False, True):
        run_dir.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            # the folder, with its lock file, may have been moved since the file was opened
            if _try_to_lock(file, fcntl.LOCK_EX) and _is_at(path, file):
                yield
                return
        if not last_try:
            time.sleep(RETRY_SECONDS)
    raise FileExistsError(f"{run_dir}: another run is writing there; end it, or choose another general.exp_name")


def is_locked(run_dir: Path) -> bool:
    """Whether another process holds :func:`lock`. Meaningless for a folder that this process has locked."""
    try:
        with (run_dir / "lock").open() as file:
            return not _try_to_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _try_to_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)  # unlike flock, not inherited by loader workers
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:  # some network file systems have no locks
        logger.debug("%s cannot be locked: %s", file.name, error)
    return True
