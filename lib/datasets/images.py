"""Image files: find a frame's image, read its size from the header, decode it."""

import os
import re
from collections.abc import Collection, Iterable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import IO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ..config import Dataset
from ..structures import read_lines

imagecodecs: ModuleType | None
try:
    import imagecodecs
except ImportError:  # optional; faster than OpenCV for PNGs like KITTI's (tools/bench/samples.py)
    imagecodecs = None

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # in any case: .JPG and .Jpg as well
_SPELLINGS = sorted(
    {"".join(letters) for suffix in IMAGE_SUFFIXES for letters in product(*zip(suffix, suffix.upper(), strict=True))},
    key=lambda suffix: (not suffix.islower(), not suffix.isupper(), IMAGE_SUFFIXES.index(suffix.lower()), suffix),
)
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_PNG_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_RGB_OF_8_BITS = bytes([8, 2, 0, 0, 0])
"""a PNG's bit depth, colour type, compression, filter and interlace method; OpenCV converts other kinds to RGB"""
_DAMAGE = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")  # libjpeg's warnings of lost pixels
_END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
_TAIL_BYTES = 1 << 12  # part of a file's end in which the end mark is searched first


class ImageHeader(NamedTuple):
    """What the header of an image file states."""

    size: tuple[int, int]  # (width, height) of the stored pixels [px]
    orientation: int  # EXIF orientation 1 .. 8 (CIPA DC-008); 1, upright, where there is none
    bits: int  # per channel

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after the rotation that the orientation asks for."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def find_image(folder: Path, frame_id: str) -> Path:
    """Path of the frame's image in ``folder``, in any accepted format; of a missing PNG where there is none."""
    paths = (folder / f"{frame_id}{suffix}" for suffix in _SPELLINGS)
    return next((path for path in paths if path.is_file()), folder / f"{frame_id}.png")


def find_second_images(names: Iterable[str], frame_ids: Collection[str]) -> dict[str, list[str]]:
    """{frame id: file names} of the frames that have several images among the ``names`` of a folder."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        stem, dot, suffix = name.rpartition(".")
        if stem in frame_ids and (dot + suffix).lower() in IMAGE_SUFFIXES:
            found.setdefault(stem, []).append(name)
    return {stem: images for stem, images in found.items() if len(images) > 1}


def read_image(path: Path, upright: bool = False, max_pixels: int | None = Dataset.max_image_pixels) -> np.ndarray:
    """Decode a PNG or JPEG to (H, W, 3) uint8, RGB.

    EXIF orientation is ignored: KITTI labels refer to stored pixels. With ``upright`` the image is turned by it.
    ``max_pixels``: see :func:`read_image_header`; None where the header was checked before. Raises OSError, or
    ValueError for a file that cannot be decoded or whose compressed data is damaged.
    """
    if max_pixels is not None:
        read_image_header(path, max_pixels)
    content = path.read_bytes()  # OpenCV cannot open a file whose name is not UTF-8
    try:
        image = _decode_jpeg(content) if content.startswith(_JPEG_SIGNATURE) else _decode_rgb_png(content)
    except ValueError as error:
        raise ValueError(f"{path}: this JPEG is damaged ({error}); fetch or unpack it again") from None
    if image is None:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), _AS_STORED)
        except cv2.error:  # an empty file, or a header that states more than 2^30 pixels
            image = None
    if image is None:
        raise ValueError(f"{path}: this image cannot be decoded; expected a PNG or JPEG")
    return _turn_upright(image, read_image_header(path, None).orientation) if upright else image


def read_image_header(path: Path, max_pixels: int | None = Dataset.max_image_pixels) -> ImageHeader:
    """Read an image's header, and look for the end mark after the start of its pixels.

    Whatever follows the end mark, such as the film of a motion photo, is ignored. Raises FileNotFoundError, or
    ValueError for a file that is no PNG or JPEG, has more than ``max_pixels``, or has no end mark (truncated).
    """
    with path.open("rb") as file:
        header = _parse_header(path, file)
        check_pixels(path, header.size, max_pixels)
        start, end = file.tell(), file.seek(0, os.SEEK_END)
        for position in (max(start, end - _TAIL_BYTES), start):
            file.seek(position)
            if _END_MARKS[header.format or ""] in file.read():
                break
        else:
            raise ValueError(f"{path}: this {header.format} is cut off; fetch or unpack it again")
        file.seek(0)
        bits = file.read(25)[24] if header.format == "PNG" else 8  # of the chunk IHDR, which comes first
        return ImageHeader(header.size, _exif_orientation(header), bits)


def check_pixels(path: Path, size: tuple[int, int], max_pixels: int | None) -> None:
    """Raise ValueError for an image without pixels or with more than ``max_pixels``, which could take all memory."""
    width, height = size
    if not width * height:
        raise ValueError(f"{path}: its header states {width} x {height} pixels")
    if max_pixels is not None and width * height > max_pixels:
        accepted = f"more than {max_pixels}; dataset.max_image_pixels raises the limit"
        raise ValueError(f"{path}: its header states {width} x {height} pixels, {accepted}")


def uses_12_of_16_bits(header: ImageHeader, image: np.ndarray) -> bool:
    """Whether a 16-bit image, here converted to 8 bits, only has values of 12 bits: such an image is nearly black."""
    return header.bits == 16 and int(image.max()) < 16


def read_size_table(path: Path) -> dict[str, tuple[int, int]]:
    """Image sizes from a CSV file with the header ``id,width,height`` -> (width, height) [px] by id.

    Raises FileNotFoundError, or ValueError with file and line.
    """
    sizes: dict[str, tuple[int, int]] = {}
    lines = [line.decode(errors="replace") for line in read_lines(path)]
    if not lines or lines[0].strip() != "id,width,height":
        raise ValueError(f"{path}, line 1: expected the header 'id,width,height', got {''.join(lines[:1])[:60]!r}")
    for number, line in enumerate(lines[1:], 2):
        match = re.fullmatch(r"\s*([\w-]+)\s*,\s*([1-9]\d{0,5})\s*,\s*([1-9]\d{0,5})\s*", line, re.ASCII)
        if match and match[1] in sizes:
            raise ValueError(f"{path}, line {number}: the size of {match[1]} is there twice")
        if match:
            sizes[match[1]] = int(match[2]), int(match[3])
        elif line.strip():
            raise ValueError(f"{path}, line {number}: expected id,width,height (000000,1224,370), got {line[:60]!r}")
    return sizes


def _parse_header(path: Path, file: IO[bytes]) -> PngImageFile | JpegImageFile:
    """Reads up to the first pixels. Not by ``Image.open``, which refuses large images and warns of them."""
    is_png = file.read(len(_PNG_SIGNATURE)) == _PNG_SIGNATURE
    file.seek(0)
    try:
        return PngImageFile(file) if is_png else JpegImageFile(file)
    except Exception:  # Pillow raises errors of many kinds for broken headers
        raise ValueError(f"{path}: not a {'PNG' if path.suffix.lower() == '.png' else 'JPEG'} file") from None


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """The same pixels as from OpenCV; None for kinds and headers that only OpenCV reads.

    Raises ValueError for damaged data, where libjpeg warns, but OpenCV, Pillow and imagecodecs return gray pixels.
    """
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", strict=True)
    except ValueError as error:
        if str(error).startswith(_DAMAGE):
            raise
        return None
    return image


def _decode_rgb_png(content: bytes) -> np.ndarray | None:
    """The same pixels as from OpenCV; None without imagecodecs, for other kinds of PNG, and for broken files."""
    if imagecodecs is None or not content.startswith(_PNG_SIGNATURE) or content[24:29] != _RGB_OF_8_BITS:
        return None
    try:
        image: np.ndarray = imagecodecs.png_decode(content)
    except (imagecodecs.PngError, ValueError):
        return None
    return image if image.shape[2:] == (3,) else None  # a transparent colour adds a fourth channel


def _exif_orientation(header: PngImageFile | JpegImageFile) -> int:
    exif = Image.Exif()
    try:
        exif.load(header.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises errors of many kinds for broken EXIF data
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """By EXIF's definition: from 5 on rows and columns are exchanged; then rows, columns or both are reversed."""
    image = image.swapaxes(0, 1) if orientation >= 5 else image
    image = image[::-1] if orientation in (3, 4, 7, 8) else image
    image = image[:, ::-1] if orientation in (2, 3, 6, 7) else image
    return np.ascontiguousarray(image)
