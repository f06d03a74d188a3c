"""Files that are written completely or not at all, and a lock on a run's folder."""

import contextlib
import fcntl
import json
import logging
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces ``path`` when it is complete. After an error ``path`` is unchanged.

    ``sync``: wait until the data is on the disk, so that a power cut cannot leave half a file. This takes too long for
    thousands of files that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically, without waiting for the disk."""
    with atomic_write(path, sync=False) as file:
        file.write(content)


def write_json(path: Path, tree: Any, sync: bool = False) -> None:
    """Write nested dicts, lists and tuples as JSON, atomically; NaN and infinities become null."""
    with atomic_write(path, sync) as file:
        file.write((json.dumps(without_nan(tree), indent=1, allow_nan=False) + "\n").encode())


def without_nan(tree: Any) -> Any:
    """A copy of nested mappings, lists and tuples (which become lists): NaN and infinities become None.

    numpy's scalars become Python's.
    """
    if isinstance(tree, Mapping):
        return {key: without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_nan(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files and folders, in ``folder`` and below, of processes that were killed while writing."""
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Lock ``run_dir`` until the end of the block or of the process. Raises FileExistsError if another run has it."""
    path = run_dir / "lock"
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
                yield
                return
    raise FileExistsError(f"{run_dir}: another run is writing there; end it, or choose another general.exp_name")


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
