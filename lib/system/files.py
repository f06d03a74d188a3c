"""Files that are written completely or not at all."""

import contextlib
import json
import math
import os
import secrets
import shutil
import time
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
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
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


def link_file(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where the file system has no hard links; atomically."""
    if target.exists() and target.samefile(source):
        return
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        with atomic_write(target) as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)
    else:
        try:
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Add ``path`` to an OSError that names no file, as that of a full disk while a file is written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def require_text_name(path: Path) -> None:
    """Raise ValueError for a path that is not UTF-8 text: OpenCV crashes where it shall open such a video."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path}: the name of a video must be UTF-8 text; rename it") from None


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


def remove_leftovers(folder: Path, min_age: float = 0.0) -> None:
    """Delete temporary files and folders, in ``folder`` and below, of processes that were killed while writing.

    Of links only those of a run's checkpoints and results are followed. ``min_age``: leave those alone that were
    changed in the last seconds, where another process may be writing.
    """
    links = [path for path in (folder / "checkpoints", folder / "results") if path.is_symlink()]
    for path in [path for place in (folder, *links) for path in place.rglob(".*.tmp")]:
        with contextlib.suppress(OSError):  # another process has deleted it
            if time.time() - path.lstat().st_mtime < min_age:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
