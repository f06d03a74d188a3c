"""The camera that an image was taken with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..structures import Calibration
from ..structures.camera import assumed_kitti_camera, camera_from_intrinsics
from .sources import ImageFile, Video

NO_CAMERA = (
    "the camera is not known: the network estimates depth from sizes in pixels, so without a focal length all "
    "distances are wrong by an unknown factor; give --fx (pixels), --p2, --calib, or --assume-kitti-camera for a guess"
)


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """The camera options of tools/predict.py. Raises ValueError unless exactly one camera is given."""

    calib: Path | None = None
    """a KITTI calibration file, or a folder with <name>.txt for every image"""
    fx: float | None = None
    """focal length [px]"""
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    p2: Sequence[str] | None = None
    """12 numbers by rows, with commas or without"""
    assume_kitti_camera: bool = False

    def __post_init__(self) -> None:
        cameras = {"--calib": self.calib, "--fx": self.fx, "--p2": self.p2}
        cameras["--assume-kitti-camera"] = self.assume_kitti_camera or None
        given = [name for name, value in cameras.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: each one defines the camera")
        for name, value in (("--fy", self.fy), ("--cx", self.cx), ("--cy", self.cy)):
            if value is not None and self.fx is None:
                raise ValueError(f"{name} needs --fx")
        if not given:
            raise ValueError(NO_CAMERA)

    def find_cameras(self, images: Sequence[ImageFile | Video]) -> list[Calibration]:
        """The camera of each image. Raises FileNotFoundError or ValueError naming a file or an option."""
        if self.assume_kitti_camera:
            return [assumed_kitti_camera(image.image_size) for image in images]
        calib, fx = self.calib, self.fx
        if calib is not None:
            if calib.is_dir():
                return _cameras_from_folder(calib, images)
            if not calib.is_file():
                raise FileNotFoundError(f"{calib}: no such calibration file or folder (--calib)")
            return _one_camera(images, lambda _: Calibration.from_file(calib))
        if fx is not None:
            return _one_camera(images, lambda size: camera_from_intrinsics(size, fx, self.fy, self.cx, self.cy))
        return _one_camera(images, lambda _: _camera_from_words(self.p2 or ()))


def _cameras_from_folder(folder: Path, images: Sequence[ImageFile | Video]) -> list[Calibration]:
    paths = [folder / f"{image.path.stem}.txt" for image in images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: no such calibration; {len(missing)} of {len(paths)} are missing")
    return [Calibration.from_file(path) for path in paths]


def _one_camera(
    images: Sequence[ImageFile | Video], make: Callable[[tuple[int, int]], Calibration]
) -> list[Calibration]:
    """The same camera for all images, which must have one size: focal length and principal point are in pixels."""
    first = images[0]
    for other in images:
        if other.image_size != first.image_size:
            (w, h), (w2, h2) = first.image_size, other.image_size
            raise ValueError(
                f"one camera does not fit images of different sizes: {first.path.name} is {w} x {h}, "
                f"{other.path.name} is {w2} x {h2}; give each its own: --calib FOLDER with <name>.txt for every image"
            )
    return [make(first.image_size)] * len(images)


def _camera_from_words(words: Sequence[str]) -> Calibration:
    words = " ".join(words).replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"P2 must be 12 numbers, got {' '.join(words)!r}") from None
    if len(numbers) != 12:
        raise ValueError(f"P2 must be 12 numbers, the rows of a 3 x 4 matrix, got {len(numbers)}")
    return Calibration(np.array(numbers))
