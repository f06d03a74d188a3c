"""What decoding needs to know about a picture; it travels with the batch, so nothing reaches back into the data set."""

from __future__ import annotations

from dataclasses import dataclass

from lib.structures.calibration import Calibration


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """One picture of a batch."""

    frame_id: str
    image_size: tuple[int, int]
    """(width, height) of the original picture [px]"""
    calibration: Calibration
    depth_scale: float = 1.0
    """what depths of the network are multiplied by: 1 for a camera like that of the training pictures"""
