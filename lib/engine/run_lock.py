"""One process at a time writes to a run's folder. Free of torch."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)
LOOKING_SECONDS = 0.2
"""is_locked looks by locking for an instant; more than that instant"""


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keep other runs out of ``run_dir``; the lock goes with the process. Raises FileExistsError where one is there."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("a") as file:
        if not _try_to_lock(file):
            time.sleep(LOOKING_SECONDS)
            if not _try_to_lock(file):
                raise FileExistsError(
                    f"{run_dir}: another run is writing there; end it, or choose another general.exp_name"
                )
        yield


def _try_to_lock(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not kept alive by orphaned loaders
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:  # some network file systems have no locks
        logger.debug("%s cannot be locked: %s", file.name, error)
    return True


def is_locked(run_dir: Path) -> bool:
    """Whether another process holds :func:`lock`. Not to be asked about what this process has locked itself."""
    if not (run_dir / "lock").is_file():
        return False
    with (run_dir / "lock").open("a") as file:
        return not _try_to_lock(file)
