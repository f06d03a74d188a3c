"""The properties of an image that decoding needs. They are part of the batch."""

from dataclasses import dataclass

from .calibration import Calibration


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """One image of a batch."""

    frame_id: str
    image_size: tuple[int, int]  # (width, height) of the original image [px]
    calibration: Calibration
    depth_scale: float = 1.0  # factor of the network's depths: 1 for a camera like that of the training images
