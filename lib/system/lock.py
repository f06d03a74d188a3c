"""A lock on a run's folder: only one process at a time writes to it."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Lock ``run_dir`` until the end of the block or of the process. Raises FileExistsError if another run has it.

    A folder that is made here is removed at the end of the block if nothing was written to it.
    """
    path = run_dir / "lock"
    missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    for _ in range(2):  # --overwrite of another process may move the folder between opening its file and locking it
        run_dir.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by loader workers
            except (BlockingIOError, PermissionError):
                continue
            except OSError as error:  # some network file systems have no locks
                logger.debug("%s cannot be locked: %s", path, error)
            if _is_at(path, file):
                try:
                    yield
                finally:
                    if missing and _is_at(path, file) and os.listdir(run_dir) == [path.name]:
                        path.unlink()
                        for folder in missing:
                            with contextlib.suppress(OSError):  # another process uses it
                                folder.rmdir()
                return
    raise FileExistsError(f"{run_dir}: another run is writing there; end it, or choose another general.exp_name")


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
