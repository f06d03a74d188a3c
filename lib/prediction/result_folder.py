"""The folder of a prediction's results: only files of an earlier prediction are deleted there."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..system.files import remove_leftovers, write_json

RECORD = "predict.json"  # settings of a prediction, and the list of its files


def refuse_to_overwrite(folder: Path, overwrite: bool, inputs: Iterable[Path]) -> None:
    """Raise FileExistsError for a folder that is not empty, unless ``overwrite``; ValueError if an input is in it."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; --out must be a folder")
    for path in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path}: lies in the folder of results, {folder}; choose another --out")
    filled = folder.is_dir() and any(folder.iterdir())
    if filled and not overwrite:
        raise FileExistsError(f"{folder}: not empty; choose another --out, or --overwrite an earlier prediction")
    if filled and not (folder / RECORD).is_file():
        raise FileExistsError(f"{folder}: not the folder of a prediction (no {RECORD}); choose another --out")


def start_results(folder: Path, files: Sequence[str], record: Mapping[str, object]) -> None:
    """Delete the files of an earlier prediction, so that results never mix, and write the record of this one.

    ``files``: relative to the folder; a name that ends in / is a folder of text files.
    """
    path = folder / RECORD
    if path.is_file():
        try:
            earlier = [folder / name for name in json.loads(path.read_text(encoding="utf-8"))["files"]]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: broken record of an earlier prediction; empty the folder yourself") from None
        for file in earlier:
            if file.resolve().is_relative_to(folder.resolve()):  # no link, and not a record that was edited
                _remove(file)
        for part in ("data", "images"):
            remove_leftovers(folder / part)
            with contextlib.suppress(OSError):  # not empty, or not there
                (folder / part).rmdir()
        for leftover in folder.glob(".*.tmp.mp4"):
            leftover.unlink(missing_ok=True)
    write_json(path, {**record, "files": list(files)})


def _remove(path: Path) -> None:
    if path.is_dir():
        for text in path.glob("[0-9]*.txt"):
            text.unlink()
        with contextlib.suppress(OSError):
            path.rmdir()
    else:
        path.unlink(missing_ok=True)
