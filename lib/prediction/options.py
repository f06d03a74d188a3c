"""The options of a prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..ops.affine import INPUT_MULTIPLE

NO_CAMERA = (
    "the camera is not known: the network estimates depth from sizes in pixels, so without a focal length all "
    "distances are wrong by an unknown factor; give --fx (pixels), --p2, --calib, or --assume-kitti-camera for a guess"
)


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of tools/predict.py. Raises ValueError for values that are not accepted."""

    checkpoint: Path
    input: Path | Sequence[Path]  # images, a folder, a video, a pattern such as *.jpg, or the number of a camera
    out: Path
    overwrite: bool = False
    config: Path | None = None
    device: str | None = None  # of torch: 'cpu', 'cuda', 'cuda:1'; None: the first GPU, or the CPU
    overrides: Sequence[str] = ()  # 'section.key=value', such as tester.threshold=0.1
    calib: Path | None = None  # a KITTI calibration file, or a folder with <name>.txt for every image
    fx: float | None = None  # focal length [px]
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    p2: Sequence[str] | None = None  # 12 numbers by rows, with commas or without
    assume_kitti_camera: bool = False
    correct_depth: bool = True
    threshold: float | None = None
    min_score: float = 0.0
    classes: Sequence[str] = ()  # empty: all of the model's
    draw: bool = True
    resolution: Sequence[int] | None = None  # network input (width, height) [px]

    @property
    def inputs(self) -> list[Path]:
        return [self.input] if isinstance(self.input, Path) else list(self.input)

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
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold must be in [0, 1], got {self.threshold:g}")
        if not (math.isfinite(self.min_score) and self.min_score >= 0):
            raise ValueError(f"--min-score must be >= 0, got {self.min_score:g}")
        if self.resolution and any(side < INPUT_MULTIPLE or side % INPUT_MULTIPLE for side in self.resolution):
            raise ValueError(f"--resolution must be two multiples of {INPUT_MULTIPLE}, got {list(self.resolution)}")
