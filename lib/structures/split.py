"""Lists of frames: ImageSets/train.txt and its like."""

from pathlib import Path
from typing import NamedTuple

from ..evaluation.reading import is_frame_id, read_lines


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
        raise FileNotFoundError(f"{path}: no such split file")
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
