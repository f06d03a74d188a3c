"""One process at a time writes to a run's folder. Free of torch."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)
LOOKING_SECONDS = 0.2
"""is_locked looks by locking for an instant, which is shorter"""


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keep other runs out of ``run_dir``; the lock goes with the process. Raises FileExistsError where one is there."""
    path = run_dir / "lock"
    for last_try in (False, True):
        run_dir.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            # the folder may have been moved aside, and its file with it, since it was opened
            if _try_to_lock(file, fcntl.LOCK_EX) and _stands_at(path, file):
                yield
                return
        if not last_try:
            time.sleep(LOOKING_SECONDS)
    raise FileExistsError(f"{run_dir}: another run is writing there; end it, or choose another general.exp_name")


def is_locked(run_dir: Path) -> bool:
    """Whether another process holds :func:`lock`. Not to be asked about what this process has locked itself."""
    try:
        with (run_dir / "lock").open() as file:
            return not _try_to_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _stands_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _try_to_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)  # unlike flock, not kept alive by orphaned loaders
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:  # some network file systems have no locks
        logger.debug("%s cannot be locked: %s", file.name, error)
    return True
