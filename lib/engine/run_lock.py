"""One process at a time writes to a run's folder. Free of torch."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keep other runs out of ``run_dir``; the lock goes with the process. Raises FileExistsError where one is there."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not kept alive by orphaned loaders
        except (BlockingIOError, PermissionError):
            raise FileExistsError(
                f"{run_dir}: another run is writing there; end it, or choose another general.exp_name"
            ) from None
        except OSError as error:  # some network file systems have no locks
            logger.debug("%s cannot be locked: %s", run_dir, error)
        yield


def is_locked(run_dir: Path) -> bool:
    """Whether another process holds :func:`lock`. Not to be asked about what this process has locked itself."""
    if not (run_dir / "lock").is_file():
        return False
    try:
        with lock(run_dir):
            return False
    except FileExistsError:
        return True
