"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """A binary file that appears under ``path`` only once it is complete; on an error nothing changes.

    ``sync``: wait for the disk first, so that not even a power cut leaves half a file. Dear for thousands of files
    that can be made again.
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


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed while they wrote left in ``folder`` and below: files, folders."""
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """A file that can be made again: whole or not at all, without waiting for the disk."""
    with atomic_write(path, sync=False) as file:
        file.write(content)
