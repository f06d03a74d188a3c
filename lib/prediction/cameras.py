"""The camera that an image was taken with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..structures import Calibration
from ..structures.camera import assumed_kitti_camera, camera_from_intrinsics
from .options import PredictOptions
from .sources import ImageFile, Video


def find_cameras(options: PredictOptions, images: Sequence[ImageFile | Video]) -> list[Calibration]:
    """The camera of each image. Raises FileNotFoundError or ValueError naming a file or an option."""
    if options.assume_kitti_camera:
        return [assumed_kitti_camera(image.image_size) for image in images]
    if options.calib is not None and options.calib.is_dir():
        return _cameras_from_folder(options.calib, images)
    if options.calib is not None and not options.calib.is_file():
        raise FileNotFoundError(f"{options.calib}: no such calibration file or folder (--calib)")
    size = _common_size(images)
    if options.fx is not None:
        camera = camera_from_intrinsics(size, options.fx, options.fy, options.cx, options.cy)
    else:
        camera = Calibration.from_file(options.calib) if options.calib else _camera_from_words(options.p2 or ())
    return [camera] * len(images)


def _cameras_from_folder(folder: Path, images: Sequence[ImageFile | Video]) -> list[Calibration]:
    paths = [folder / f"{image.path.stem}.txt" for image in images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no such calibration; {len(missing)} of {len(paths)} are missing")
    return [Calibration.from_file(path) for path in paths]


def _common_size(images: Sequence[ImageFile | Video]) -> tuple[int, int]:
    """(width, height) [px] of all images: focal length and principal point are in pixels."""
    first = images[0]
    for other in images:
        if other.image_size != first.image_size:
            (w, h), (w2, h2) = first.image_size, other.image_size
            raise ValueError(
                f"one camera does not fit images of different sizes: {first.path.name} is {w} x {h}, "
                f"{other.path.name} is {w2} x {h2}; give each its own: --calib FOLDER with <name>.txt for every image"
            )
    return first.image_size


def _camera_from_words(words: Sequence[str]) -> Calibration:
    text = " ".join(words).replace(",", " ")
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != 12:
        raise ValueError(f"P2 must be 12 numbers, the rows of a 3 x 4 matrix, got {len(text.split())}: {text!r}")
    return Calibration(np.array(numbers))
