"""The parser of KITTI's label and result files: lines of type, 14 numbers and, in result files, a score.

``read_annotations`` and ``lib.structures`` both use it. It is plain Python: reading labels loads neither numba nor
numpy.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

LABEL_COLUMNS, RESULT_COLUMNS = 15, 16
COLUMN_NAMES = (
    *("truncated", "occluded", "alpha", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
    *("height", "width", "length", "x", "y", "z", "rotation_y", "score"),
)
"""The numbers of a line, in file order: bbox [px], sizes and location [m], angles [rad]."""

Row = tuple[str, list[float]]
"""Type name and the 14 (without score) or 15 numbers of a line."""


def list_ids(folder: str | Path) -> list[str]:
    """Ids ('000123') of all ``<digits>.txt`` in ``folder``, ascending."""
    stems = [name[:-4] for name in list_names(folder) if name.endswith(".txt")]
    return sorted(stem for stem in stems if stem.isascii() and stem.isdigit())


def list_names(folder: str | Path) -> list[str]:
    """Names of all entries. Raises FileNotFoundError, or ValueError where ``folder`` is a file."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise ValueError(f"{folder}: is a file; expected a folder of KITTI text files") from None


def read_rows(path: str | Path, scored: bool = False) -> Iterator[Row]:
    """The lines of a file, empty ones left out; ``scored``: see :func:`parse_line`.

    Raises FileNotFoundError, and ValueError with file and line number for the first malformed line.
    """
    for number, row in scan_rows(path, scored):
        if isinstance(row, ValueError):
            raise ValueError(f"{path}, line {number}: {row}")
        yield row


def scan_rows(path: str | Path, scored: bool = False) -> Iterator[tuple[int, Row | ValueError]]:
    """Line number (from 1) and content of each line that is not empty, or the error of a malformed one.

    Lines end at line feeds only. Raises FileNotFoundError, and ValueError where ``path`` is a folder.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # unbuffered: thousands of files of a few hundred bytes
            content = file.read()
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; expected a label or result file") from None
    for number, line in enumerate(content.split(b"\n"), 1):
        if line and not line.isspace():
            try:
                yield number, parse_line(line, scored)
            except ValueError as error:
                yield number, error


def parse_line(line: bytes, scored: bool = False) -> Row:
    """Parse the columns of a line, separated by ASCII white space.

    A label has 15 columns (a 16th, the score, is kept) and a whole number for ``occluded``; a detection (``scored``)
    has 16 columns. Raises ValueError, naming column and value, for anything else.
    """
    columns = line.split()
    try:
        numbers = list(map(float, columns[1:]))
    except ValueError:
        numbers = [math.nan]
    # If the sum is finite, all numbers are. Other lines may be valid too ('_' in Person_sitting, an overflow).
    if (
        len(columns) not in ((RESULT_COLUMNS,) if scored else (LABEL_COLUMNS, RESULT_COLUMNS))
        or b"_" in line
        or not math.isfinite(sum(numbers))
        or not columns[0].isalnum()
    ):
        _check_columns(columns, scored)
    if not (scored or numbers[1].is_integer()):
        raise ValueError(f"occluded must be a whole number (-1, 0, 1, 2 or 3), got {_shown(columns[2])}")
    return columns[0].decode("ascii"), numbers


def _check_columns(columns: list[bytes], scored: bool) -> None:
    odd = [byte for byte in b"".join(columns) if not 32 < byte < 127]
    if odd:
        raise ValueError(f"not a text file (byte 0x{odd[0]:02x})")
    if scored and len(columns) == LABEL_COLUMNS:
        raise ValueError("15 columns: the score is missing; a detection has 16 columns, the score is the last")
    if len(columns) not in (LABEL_COLUMNS, RESULT_COLUMNS):
        expected = "16 columns (a detection with its score)" if scored else "15 columns (label) or 16 (with a score)"
        raise ValueError(f"expected {expected}, got {len(columns)}: {_shown(b' '.join(columns), 120)}")
    for name, column in zip(COLUMN_NAMES, columns[1:], strict=False):
        try:
            number = math.nan if b"_" in column else float(column)  # '1_000' is a number in Python only
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{name} must be a finite number, got {_shown(column)}")


def _shown(text: bytes, length: int = 40) -> str:
    return repr(text[:length].decode("ascii"))
