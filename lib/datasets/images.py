"""Image files: which one a frame has, its size without decoding it, and its pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from .fast_png import isal_zlib, with_stored_pixels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG = b"\xff\xd8"
_LYING = 5
"""from this number of Exif's on, width and height change places"""
_TAIL = 1 << 12
"""bytes at a file's end to look for its end mark in: some cameras and programs write a few more after it"""


def find_image(folder: Path, frame_id: str) -> Path:
    """The frame's image in ``folder``, of whatever format; where there is none, the name of a missing PNG."""
    for suffix in IMAGE_SUFFIXES:
        path = folder / f"{frame_id}{suffix}"
        if path.is_file():
            return path
    return folder / f"{frame_id}.png"


def read_image(path: Path, upright: bool = False) -> np.ndarray:
    """(H, W, 3) uint8, RGB, as it is stored: a JPEG's note that it should be turned is not heeded, labels are not.

    ``upright``: turned as that note says. Raises ValueError for a file that cannot be decoded.
    """
    fast = with_stored_pixels(path.read_bytes()) if isal_zlib and path.suffix == ".png" and path.is_file() else None
    try:
        if fast is None:
            image = cv2.imread(str(path), _AS_STORED)
        else:
            image = cv2.imdecode(np.frombuffer(fast, np.uint8), _AS_STORED)
    except cv2.error:  # a header that speaks of more than 2^30 pixels
        image = None
    if image is None:
        raise ValueError(f"{path}: this image cannot be decoded; expected a PNG or JPEG")
    if upright:
        with path.open("rb") as file:
            if file.read(2) == _JPEG:
                return _turned(image, _orientation_of_jpeg(_JPEG + file.read()))
    return image


def read_image_size(path: Path, upright: bool = False) -> tuple[int, int]:
    """(width, height) [px] from the header of a PNG or JPEG, without decoding it; as ``read_image`` would give it.

    Raises FileNotFoundError, or ValueError for a file that does not begin or does not end like one (cut off).
    """
    with path.open("rb") as file:
        header = file.read(24)
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        trailer = file.read()
        file.seek(0)
        size, mark = _size_of_png(header), b"IEND"
        if size is None and header.startswith(_JPEG):
            content = file.read()
            size, mark = _size_of_jpeg(content), b"\xff\xd9"
            if upright and size and _orientation_of_jpeg(content) >= _LYING:
                size = size[1], size[0]
    if size is None:
        raise ValueError(f"{path}: not a {'JPEG' if path.suffix.lower() != '.png' else 'PNG'} file")
    if mark not in trailer:
        raise ValueError(f"{path}: this {'PNG' if mark == b'IEND' else 'JPEG'} is cut off; fetch or unpack it again")
    return size


def read_size_table(path: Path) -> dict[str, tuple[int, int]]:
    """Sizes of images that are not at hand: CSV with the header ``id,width,height`` -> (width, height) [px] by id.

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
    for mark, place in _jpeg_segments(content):
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC) and place + 7 <= len(content):
            height, width = content[place + 3 : place + 5], content[place + 5 : place + 7]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
    return None


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """(mark, place of its length) of the segments before the pixels."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        mark = content[place + 1]
        if mark == 0xFF or 0xD0 <= mark <= 0xD8:  # a filling byte, or a mark without content
            place += 1 if mark == 0xFF else 2
            continue
        yield mark, place + 2
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")


def _orientation_of_jpeg(content: bytes) -> int:
    """Exif's note how the image is to be turned (CIPA DC-008), 1 .. 8; 1, not at all, where there is none."""
    for mark, place in _jpeg_segments(content):
        segment = content[place + 2 : place + int.from_bytes(content[place : place + 2], "big")]
        order: Literal["little", "big"] = "little" if segment[6:8] == b"II" else "big"
        if mark != 0xE1 or not segment.startswith(b"Exif\0\0") or segment[6:8] not in (b"II", b"MM"):
            continue
        tiff = segment[6:]
        directory = int.from_bytes(tiff[4:8], order)
        for k in range(int.from_bytes(tiff[directory : directory + 2], order)):
            entry = tiff[directory + 2 + 12 * k :][:12]
            if int.from_bytes(entry[:2], order) == 0x0112:
                value = int.from_bytes(entry[8:10], order)
                return value if value in range(1, 9) else 1
    return 1


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """By Exif's numbers: from 5 on rows and columns change places, and then both kinds are mirrored or not."""
    image = image.swapaxes(0, 1) if orientation >= _LYING else image
    image = image[::-1] if orientation in (3, 4, 7, 8) else image
    image = image[:, ::-1] if orientation in (2, 3, 6, 7) else image
    return np.ascontiguousarray(image)
