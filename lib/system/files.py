"""Files that are written completely or not at all."""

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np


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
