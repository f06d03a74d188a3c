"""The parser of KITTI's text files: type, 14 numbers and, in result files, a score on a line; frame ids; type names.

``read_annotations`` and ``lib.structures`` both use it. It is plain Python: reading labels loads neither numba nor
numpy.
"""

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

KITTI_TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare")
"""All types of KITTI's label files (devkit/readme.txt)."""
LABEL_COLUMNS, RESULT_COLUMNS = 15, 16
COLUMN_NAMES = (  # The numbers of a line, in file order: bbox [px], sizes and location [m], angles [rad].
    *("truncated", "occluded", "alpha", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
    *("height", "width", "length", "x", "y", "z", "rotation_y", "score"),
)

DRIVES_FILE = "drives.csv"  # in the folder of a data set: id and drive of each frame
UNKNOWN_ALPHA = -10.0  # of DontCare in KITTI's labels, and of results without orientation
Row = tuple[str, list[float]]  # Type name and the 14 (without score) or 15 numbers of a line.


def canonical_names(class_names: Iterable[str] = ()) -> dict[str, str]:
    """{name in small letters: spelling} of KITTI's types and of ``class_names``, whose spelling has precedence.

    Type names are compared without regard to case, as in KITTI's own evaluator: what has read a file or a configuration
    gives every name the spelling that this table has for it, so that all other code compares names with ``==``.
    """
    return {name.lower(): name for name in (*KITTI_TYPES, *class_names)}


_KITTI_NAMES = canonical_names()


def is_frame_id(text: str) -> bool:
    """Whether ``text`` can be the id of a frame: at most 200 ASCII letters, digits, _ and -."""
    return re.fullmatch(r"[0-9A-Za-z_-]{1,200}", text) is not None


class SplitFault(NamedTuple):
    """What is wrong with a line of a split file."""

    line: int  # from 1; 0: the file as a whole
    message: str
    repeated: bool = False  # the line is well-formed, but its frame is already listed


def read_split(path: str | Path) -> tuple[str, ...]:
    """Frame ids of an ImageSets file. Raises FileNotFoundError, or ValueError: empty, a line malformed or repeated."""
    lines, faults = scan_split(path)
    for line, message, _ in faults:
        raise ValueError(f"{path}{f', line {line}' if line else ''}: {message}")
    return tuple(lines)


def scan_split(path: str | Path) -> tuple[dict[str, int], list[SplitFault]]:
    """Line number of each frame id, in file order, and all faults. Raises FileNotFoundError."""
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.txt")], 1)
        raise FileNotFoundError(f"{path}: no such split file" + "".join(f"; did you mean {name}?" for name in near))
    ids: dict[str, int] = {}
    faults: list[SplitFault] = []
    try:
        lines = read_lines(path)
    except ValueError as error:
        return ids, [SplitFault(0, str(error).removeprefix(f"{path}: "))]
    for number, line in enumerate(lines, 1):
        frame_id = line.strip().decode(errors="backslashreplace")
        if not frame_id:
            continue
        if not is_frame_id(frame_id):
            faults.append(SplitFault(number, f"expected one frame id such as 000123, got {frame_id[:60]!r}"))
        elif frame_id in ids:
            faults.append(SplitFault(number, f"frame {frame_id} is already on line {ids[frame_id]}", repeated=True))
        else:
            ids[frame_id] = number
    if not ids and not faults:
        faults.append(SplitFault(0, "the split is empty; expected one frame id a line"))
    return ids, faults


def list_ids(folder: str | Path) -> list[str]:
    """Ids ('000123') of all ``<id>.txt`` in ``folder``, sorted; hidden files are left out.

    Raises ValueError for a .txt file whose name is no frame id.
    """
    stems = [name[:-4] for name in list_names(folder) if name.endswith(".txt") and not name.startswith(".")]
    for stem in stems:
        if not is_frame_id(stem):
            raise ValueError(f"{folder}/{stem}.txt: not the name of a frame; expected letters, digits, _ and -")
    return sorted(stems)


def list_names(folder: str | Path) -> list[str]:
    """Names of all entries. Raises FileNotFoundError, or ValueError where ``folder`` is a file."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise ValueError(f"{folder}: is a file; expected a folder of KITTI text files") from None


def read_lines(path: str | Path) -> list[bytes]:
    """The lines of a text file, without their ends (line feed, carriage return, or both) and without a UTF-8 mark.

    Raises FileNotFoundError, and ValueError for a folder and for UTF-16 text.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # unbuffered: thousands of files of a few hundred bytes
            content = file.read()
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; expected a text file") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path}: this is UTF-16 text, as PowerShell writes it; save it as UTF-8")
    return content.removeprefix(b"\xef\xbb\xbf").splitlines()


def read_rows(path: str | Path, scored: bool = False, names: Mapping[str, str] = _KITTI_NAMES) -> Iterator[Row]:
    """The lines of a file, empty ones left out; ``scored``, ``names``: see :func:`parse_line`.

    Raises FileNotFoundError, and ValueError with file and line number for the first malformed line.
    """
    for number, row in scan_rows(path, scored, names):
        if isinstance(row, ValueError):
            raise ValueError(f"{path}, line {number}: {row}")
        yield row


def scan_rows(
    path: str | Path, scored: bool = False, names: Mapping[str, str] = _KITTI_NAMES
) -> Iterator[tuple[int, Row | ValueError]]:
    """Line number (from 1) and content of each line that is not empty, or the error of a malformed one.

    Raises FileNotFoundError, and ValueError where ``path`` is no text file.
    """
    for number, line in enumerate(read_lines(path), 1):
        if line and not line.isspace():
            try:
                yield number, parse_line(line, scored, names)
            except ValueError as error:
                yield number, error


def parse_line(line: bytes, scored: bool = False, names: Mapping[str, str] = _KITTI_NAMES) -> Row:
    """Parse the columns of a line, separated by ASCII white space.

    A label has 15 columns, a detection (``scored``) has 16, the last one is its score; ``occluded`` is a whole number.
    A label's 16th column, which some converters write, is kept as a score too: who uses labels says so.
    ``names``: see :func:`canonical_names`. Raises ValueError, naming column and value, for anything else.
    """
    columns = line.split()
    try:
        numbers = list(map(float, columns[1:]))
    except ValueError:
        numbers = [math.nan]
    # If the sum is finite, all numbers are. Other lines may be valid too ('_' in Person_sitting, an overflow).
    accepted = (RESULT_COLUMNS,) if scored else (LABEL_COLUMNS, RESULT_COLUMNS)
    if len(columns) not in accepted or b"_" in line or not math.isfinite(sum(numbers)) or not columns[0].isalnum():
        _check_columns(columns, scored)
    if not numbers[1].is_integer():
        raise ValueError(f"occluded must be a whole number (-1, 0, 1, 2 or 3), got {_shown(columns[2])}")
    name = columns[0].decode()
    return names.get(name.lower(), name), numbers


def _check_columns(columns: list[bytes], scored: bool) -> None:
    odd = [byte for byte in b"".join(columns) if byte < 32 or byte == 127]
    if odd:
        raise ValueError(f"not a text file (byte 0x{odd[0]:02x})")
    if scored and len(columns) == LABEL_COLUMNS:
        raise ValueError("15 columns: the score is missing; a detection has 16 columns, the score is the last")
    if len(columns) not in (LABEL_COLUMNS, RESULT_COLUMNS):
        expected = "16 columns (a detection with its score)" if scored else "15 columns (label) or 16 (with a score)"
        raise ValueError(f"expected {expected}, got {len(columns)}: {_shown(b' '.join(columns), 120)}")
    for name, column in zip(COLUMN_NAMES, columns[1:], strict=False):
        if not (is_number(column) and math.isfinite(float(column))):
            raise ValueError(f"{name} must be a finite number, got {_shown(column)}")
    try:
        columns[0].decode()
    except UnicodeDecodeError:
        raise ValueError(f"the type {_shown(columns[0])} is not UTF-8 text; save the file as UTF-8") from None


def is_number(word: bytes) -> bool:
    """Whether ``word`` is a number, NaN and infinity included."""
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word  # '1_000' is a number in Python only


def _shown(text: bytes, length: int = 40) -> str:
    shown = text[:length].decode(errors="backslashreplace")
    return f"'{shown}'" if shown.isprintable() else repr(shown)
