"""Lists of frames: ImageSets/train.txt and its like."""

from __future__ import annotations

import re
from pathlib import Path


def read_split(path: str | Path) -> tuple[str, ...]:
    """Frame ids of an ImageSets file, one a line.

    Raises FileNotFoundError, or ValueError where it is empty or a line is malformed or repeated.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such split file")
    ids: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file; expected one frame id such as 000123 a line") from None
    for number, line in enumerate(lines, 1):
        frame_id = line.strip()
        if not frame_id:
            continue
        if not re.fullmatch(r"[0-9A-Za-z_-]+", frame_id):
            raise ValueError(f"{path}, line {number}: expected one frame id such as 000123, got {frame_id[:60]!r}")
        if frame_id in ids:
            raise ValueError(f"{path}, line {number}: frame {frame_id} is already on line {ids[frame_id]}")
        ids[frame_id] = number
    if not ids:
        raise ValueError(f"{path}: the split is empty; expected one frame id a line")
    return tuple(ids)
