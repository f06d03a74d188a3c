"""What decoding needs to know about an image; it travels with the batch, so nothing reaches back into the data set."""

from __future__ import annotations

from dataclasses import dataclass

from .calibration import Calibration


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """One image of a batch."""

    frame_id: str
    image_size: tuple[int, int]
    """(width, height) of the original image [px]"""
    calibration: Calibration
    depth_scale: float = 1.0
    """what depths of the network are multiplied by: 1 for a camera like that of the training images"""
