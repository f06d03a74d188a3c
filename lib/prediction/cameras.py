"""Which camera an image was taken with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..structures import Calibration
from .sources import ImageFile, Video


def cameras_from_folder(folder: Path, images: Sequence[ImageFile | Video]) -> list[Calibration]:
    """``folder/<name>.txt`` for each image. Raises FileNotFoundError or ValueError naming the first bad one."""
    paths = [folder / f"{image.path.stem}.txt" for image in images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no such calibration; {len(missing)} of {len(paths)} are missing")
    return [Calibration.from_file(path) for path in paths]


def one_camera(
    images: Sequence[ImageFile | Video], make: Callable[[tuple[int, int]], Calibration]
) -> list[Calibration]:
    """The same for all, made for their size (width, height).

    Raises ValueError, naming two of them, where sizes differ: focal length and principal point are in pixels.
    """
    first = images[0]
    for other in images:
        if other.image_size != first.image_size:
            (w, h), (w2, h2) = first.image_size, other.image_size
            raise ValueError(
                f"one camera does not fit images of different sizes: {first.path.name} is {w} x {h}, "
                f"{other.path.name} is {w2} x {h2}; give each its own: --calib FOLDER with <name>.txt for every image"
            )
    return [make(first.image_size)] * len(images)


def camera_from_words(words: Sequence[str]) -> Calibration:
    """P2 from 12 numbers by rows, with commas or without. Raises ValueError."""
    words = " ".join(words).replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"P2 must be 12 numbers, got {' '.join(words)!r}") from None
    if len(numbers) != 12:
        raise ValueError(f"P2 must be 12 numbers, the rows of a 3 x 4 matrix, got {len(numbers)}")
    return Calibration(np.array(numbers))
