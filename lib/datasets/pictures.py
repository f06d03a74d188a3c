"""Picture files: which one a frame has, its size without decoding it, and its pixels."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np

from lib.datasets.fast_png import isal_zlib, with_stored_pixels

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_TAIL = 1 << 12
"""bytes at a JPEG's end to look for its end mark in: some cameras write a few more after it"""


def find_picture(folder: Path, frame_id: str) -> Path:
    """The frame's picture in ``folder``, of whatever format; where there is none, the name of a missing PNG."""
    for suffix in PICTURE_SUFFIXES:
        path = folder / f"{frame_id}{suffix}"
        if path.is_file():
            return path
    return folder / f"{frame_id}.png"


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, RGB, as it is stored: a JPEG's note that it should be turned is not heeded, labels are not.

    Raises ValueError for a file that cannot be decoded.
    """
    fast = with_stored_pixels(path.read_bytes()) if isal_zlib and path.suffix == ".png" and path.is_file() else None
    if fast is None:
        image = cv2.imread(str(path), _AS_STORED)
    else:
        image = cv2.imdecode(np.frombuffer(fast, np.uint8), _AS_STORED)
    if image is None:
        raise ValueError(f"{path}: this picture cannot be decoded; expected a PNG or JPEG")
    return image


def read_image_size(path: Path) -> tuple[int, int]:
    """(width, height) [px] from the header of a PNG or JPEG, without decoding it.

    Raises FileNotFoundError, or ValueError for a file that does not begin or does not end like one (cut off).
    """
    with path.open("rb") as file:
        header = file.read(24)
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        trailer = file.read()
        file.seek(0)
        size, mark = _size_of_png(header), b"IEND"
        if size is None and header.startswith(b"\xff\xd8"):
            size, mark = _size_of_jpeg(file.read()), b"\xff\xd9"
    if size is None:
        raise ValueError(f"{path}: not a {'JPEG' if path.suffix.lower() != '.png' else 'PNG'} file")
    if mark not in trailer[-12:] and not (mark == b"\xff\xd9" and mark in trailer):
        raise ValueError(f"{path}: this {'PNG' if mark == b'IEND' else 'JPEG'} is cut off; fetch or unpack it again")
    return size


def read_size_table(path: Path) -> dict[str, tuple[int, int]]:
    """Sizes of pictures that are not at hand: CSV with the header ``id,width,height`` -> (width, height) [px] by id.

    Raises FileNotFoundError, or ValueError with file and line.
    """
    sizes: dict[str, tuple[int, int]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "id,width,height":
        raise ValueError(f"{path}, line 1: expected the header 'id,width,height', got {''.join(lines[:1])[:60]!r}")
    for number, line in enumerate(lines[1:], 2):
        match = re.fullmatch(r"\s*([\w-]+)\s*,\s*([1-9]\d{0,5})\s*,\s*([1-9]\d{0,5})\s*", line, re.ASCII)
        if match:
            sizes[match[1]] = int(match[2]), int(match[3])
        elif line.strip():
            raise ValueError(f"{path}, line {number}: expected id,width,height (000000,1224,370), got {line[:60]!r}")
    return sizes


def _size_of_png(header: bytes) -> tuple[int, int] | None:
    match = re.match(rb"\x89PNG\r\n\x1a\n....IHDR(....)(....)", header, re.DOTALL)
    return (int.from_bytes(match[1], "big"), int.from_bytes(match[2], "big")) if match else None


def _size_of_jpeg(content: bytes) -> tuple[int, int] | None:
    """From the frame header, which may come after thumbnails and other segments (ITU-T T.81, B.1.1.4 and B.2.2)."""
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        mark = content[place + 1]
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            height, width = content[place + 5 : place + 7], content[place + 7 : place + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        alone = mark == 0xFF or 0xD0 <= mark <= 0xD8  # a filling byte, or a mark without content
        place += 1 if mark == 0xFF else 2 if alone else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None
