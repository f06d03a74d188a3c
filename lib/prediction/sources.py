"""Images and videos without labels: found, checked, and read one after the other."""

from __future__ import annotations

import contextlib
import glob
import math
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..datasets.images import IMAGE_SUFFIXES, read_image, read_image_header
from ..ops.text import natural_key
from ..system.files import require_text_name

_SUFFIXES = ", ".join(IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A PNG or JPEG whose header was read."""

    path: Path
    image_size: tuple[int, int]  # (width, height) [px], after the rotation that EXIF orientation asks for

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB, EXIF orientation applied. Raises ValueError or OSError naming the file."""
        image = read_image(self.path, upright=True, max_pixels=None)
        if image.shape[1::-1] != self.image_size:
            raise ValueError(f"{self.path}: decoded to {image.shape[1::-1]}, but its header has {self.image_size}")
        return image


@dataclass(frozen=True, slots=True)
class Video:
    """A video whose first frame OpenCV could read."""

    path: Path
    image_size: tuple[int, int]  # (width, height) [px], after the rotation that the file asks for
    frame_rate: float  # frames per second; NaN if unknown
    frames: int  # the number in the file's header, which may be an estimate; 0 if unknown
    camera: int | None = None  # number of a camera instead of a file; it has no end

    @classmethod
    def from_file(cls, path: Path, camera: int | None = None) -> Video:
        """A file, or a camera, whose results are named by ``path``. Raises ValueError if OpenCV cannot read a frame."""
        with _open(path, camera) as capture:
            found, first = capture.read()
            rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if (not found or first is None) and camera is not None:
            raise ValueError(f"--input {camera}: no such file, and OpenCV cannot read a camera of that number")
        if not found or first is None:
            raise ValueError(f"{path}: neither an image ({_SUFFIXES}) nor a video that OpenCV can read")
        known = camera is None and math.isfinite(frames) and 0 < frames < 1e9
        rate = rate if 0 < rate <= 1000 else math.nan
        return cls(path, (first.shape[1], first.shape[0]), rate, round(frames) if known else 0, camera)

    def read(self) -> Generator[np.ndarray, None, None]:
        """The frames (H, W, 3) uint8, RGB, one at a time. Raises ValueError if their size changes."""
        with _open(self.path, self.camera) as capture:
            while (found := capture.read())[0]:
                frame = found[1]
                if frame.shape[1::-1] != self.image_size and self.camera is not None:
                    return  # what was recorded is kept
                if frame.shape[1::-1] != self.image_size:
                    raise ValueError(f"{self.path}: the frames' size changes, {self.image_size}, {frame.shape[1::-1]}")
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def find_source(*paths: Path) -> list[ImageFile] | Video:
    """Images, in the order 2.png, 10.png, or one video or camera; headers are read.

    ``paths``: images, folders of images (their subfolders are not searched), patterns such as photos/*.jpg; or one
    video; or, as 0, the number of a camera. Raises FileNotFoundError where there is none, and ValueError naming a file
    that is not complete, or two images whose names differ only in their folder or suffix.
    """
    listed = [image for path in paths for image in _list_files(path)]
    found = list({image.resolve(): image for image in reversed(listed)}.values())[::-1]  # each file once
    if len(found) == 1 and not _is_image(found[0]):
        (path,) = found
        return Video.from_file(path) if path.exists() else Video.from_file(Path(f"camera{path}"), int(path.name))
    names: dict[str, Path] = {}
    for image in found:
        if not _is_image(image):
            raise ValueError(f"{image}: not an image ({_SUFFIXES}); a video or camera must be the only --input")
        first = names.setdefault(image.stem, image)
        if first != image:
            both = (first, image) if first.parent != image.parent else (first.name, image.name)
            raise ValueError(f"{both[0]} and {both[1]} would both be {image.stem}.txt; rename one")
    return [ImageFile(image, read_image_header(image, None).upright_size) for image in found]


def _list_files(path: Path) -> list[Path]:
    if path.is_dir():
        found = _sorted(p for p in path.iterdir() if _is_image(p) and p.name[0] != ".")
        if not found:
            raise FileNotFoundError(f"{path}: no image in this folder ({_SUFFIXES}; subfolders are not searched)")
        return found
    if path.is_file() or re.fullmatch(r"\d{1,4}", str(path)):  # the number of a camera
        return [path]
    matching = [Path(name) for name in glob.glob(str(path), recursive=True)]
    if not matching:
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = _sorted(match for match in matching if match.is_file())
    if len(files) < len(matching):
        folder = next(match for match in matching if not match.is_file())
        raise ValueError(f"{path}: the pattern matches the folder {folder}; name folders without a pattern")
    return files


def _sorted(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: natural_key(file.name))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


@contextlib.contextmanager
def _open(path: Path, camera: int | None) -> Iterator[cv2.VideoCapture]:
    require_text_name(path)
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # errors are reported here
    try:
        # FFMPEG explicitly: other backends take the digits of a file's name for an image sequence
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG) if camera is None else cv2.VideoCapture(camera)
    finally:
        cv2.utils.logging.setLogLevel(before)
    try:
        yield capture
    finally:
        capture.release()
