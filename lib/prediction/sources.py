"""Images and videos without labels: found, checked, and read one after the other."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..datasets.images import IMAGE_SUFFIXES, read_image, read_image_size

_SUFFIXES = ", ".join(IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A PNG or JPEG whose header was read."""

    path: Path
    image_size: tuple[int, int]
    """(width, height) [px], after the rotation that EXIF orientation asks for"""

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB, EXIF orientation applied. Raises ValueError or OSError naming the file."""
        image = read_image(self.path, upright=True)
        if image.shape[1::-1] != self.image_size:
            raise ValueError(f"{self.path}: decoded to {image.shape[1::-1]}, but its header has {self.image_size}")
        return image


@dataclass(frozen=True, slots=True)
class Video:
    """A video whose first frame OpenCV could read."""

    path: Path
    image_size: tuple[int, int]
    """(width, height) [px], after the rotation that the file asks for"""
    frame_rate: float
    """frames per second; NaN if unknown"""
    frames: int
    """the number in the file's header, which may be an estimate; 0 if unknown"""

    @classmethod
    def from_file(cls, path: Path) -> Video:
        """Raises ValueError if OpenCV cannot read a frame."""
        capture = _open(path)
        try:
            found, first = capture.read()
            rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        finally:
            capture.release()
        if not found or first is None:
            raise ValueError(f"{path}: neither an image ({_SUFFIXES}) nor a video that OpenCV can read")
        known = math.isfinite(frames) and 0 < frames < 1e9
        rate = rate if 0 < rate <= 1000 else math.nan
        return cls(path, (first.shape[1], first.shape[0]), rate, round(frames) if known else 0)

    def read(self) -> Generator[np.ndarray, None, None]:
        """The frames (H, W, 3) uint8, RGB, one at a time. Raises ValueError if their size changes."""
        capture = _open(self.path)
        try:
            while True:
                found, frame = capture.read()
                if not found:
                    return
                if frame.shape[1::-1] != self.image_size:
                    raise ValueError(f"{self.path}: the frames' size changes, {self.image_size}, {frame.shape[1::-1]}")
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()


def is_image(path: Path) -> bool:
    """Whether the file's suffix is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def find_images(path: Path) -> list[Path]:
    """The file itself, or the images of a folder (not of its subfolders), 2.png before 10.png.

    Raises FileNotFoundError where there is none, and ValueError where two names differ only in their suffix.
    """
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file or folder")
        return [path]
    found = sorted((p for p in path.iterdir() if is_image(p) and p.is_file() and p.name[0] != "."), key=_natural_key)
    if not found:
        raise FileNotFoundError(f"{path}: no image in this folder ({_SUFFIXES}; subfolders are not searched)")
    names: dict[str, Path] = {}
    for image in found:
        if image.stem in names:
            first = names[image.stem].name
            raise ValueError(f"{path}: {first} and {image.name} would both be {image.stem}.txt; rename one")
        names[image.stem] = image
    return found


def _natural_key(path: Path) -> list[int | str]:
    """Sort key that compares numbers in names by their value."""
    parts = re.split(r"([0-9]+)", path.name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def check_images(paths: Iterable[Path]) -> Iterator[ImageFile]:
    """Read the headers. Raises ValueError naming the first file that is not a complete image."""
    for path in paths:
        yield ImageFile(path, read_image_size(path, upright=True))


def _open(path: Path) -> cv2.VideoCapture:
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # errors are reported here
    try:
        # FFMPEG explicitly: other backends take the digits of a file's name for an image sequence
        return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(before)
