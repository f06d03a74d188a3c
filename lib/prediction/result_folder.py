"""A folder of predictions: what was not written there by an earlier prediction is never touched."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..system.files import remove_leftovers, write_file

RECORD = "predict.json"
"""what a prediction was made with, and the files that it was to write"""


def refuse_to_overwrite(folder: Path, overwrite: bool, inputs: Iterable[Path]) -> None:
    """Raise FileExistsError for a folder that holds anything, unless ``overwrite``; ValueError if an input is in it."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; --out must be a folder")
    for path in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path}: lies in the folder of results, {folder}; choose another --out")
    filled = folder.is_dir() and any(folder.iterdir())
    if filled and not overwrite:
        raise FileExistsError(f"{folder}: not empty; choose another --out, or --overwrite what was predicted there")
    if filled and not (folder / RECORD).is_file():
        raise FileExistsError(f"{folder}: what is there is of no prediction (no {RECORD}); choose another --out")


def begin_results(folder: Path, files: Sequence[str], record: dict[str, Any]) -> None:
    """Delete what an earlier prediction has written, so that results never mix, and leave a record of this one.

    ``files``: relative to the folder; one that ends in / is a folder of text files.
    """
    own = folder / RECORD
    if own.is_file():
        for name in _recorded(own):
            _remove(folder, name)
        for part in ("data", "images"):
            remove_leftovers(folder / part)
            with contextlib.suppress(OSError):  # not empty, or not there
                (folder / part).rmdir()
        for leftover in folder.glob(".*.tmp.mp4"):
            leftover.unlink(missing_ok=True)
    write_file(own, (json.dumps(record | {"files": list(files)}, indent=1) + "\n").encode())


def _recorded(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["files"]
        return [str(name) for name in names]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: this record of an earlier prediction is broken; empty the folder yourself") from None


def _remove(folder: Path, name: str) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):  # a link, or a record that somebody has changed
        return
    if name.endswith("/"):
        for text in path.glob("[0-9]*.txt"):
            text.unlink()
        with contextlib.suppress(OSError):
            path.rmdir()
    else:
        path.unlink(missing_ok=True)
