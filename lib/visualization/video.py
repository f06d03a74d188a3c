"""A video file that appears only once it is complete."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

CODEC = "mp4v"  # MPEG-4 part 2, which every build of OpenCV can write. Media players decode it, browsers do not.


@contextlib.contextmanager
def open_video(path: Path, frame_rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """An .mp4 file, which appears at the end of the block; gives the function that appends a frame.

    Frames are (H, W, 3) uint8, RGB, all of one size; an odd side is padded by one black line. If the block raises an
    error or writes no frame, no file appears and an older one stays unchanged. Raises OSError if the video cannot be
    written; the path must be UTF-8 text.
    """
    # MPEG-4 divides a second into at most 65535 ticks, so a rate such as 239.9612 has to be rounded
    frame_rate = max(round(frame_rate, 3 if frame_rate < 65 else 2), 0.01)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")  # OpenCV needs the suffix
    writer, frames = cv2.VideoWriter(), 0

    def append(frame_rgb: np.ndarray) -> None:
        nonlocal frames
        height, width = frame_rgb.shape[:2]
        if height % 2 or width % 2:  # the codec halves the resolution of colour
            frame_rgb = cv2.copyMakeBorder(frame_rgb, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT)
        if frames == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            code, size = cv2.VideoWriter.fourcc(*CODEC), (frame_rgb.shape[1], frame_rgb.shape[0])
            if not writer.open(str(temporary), cv2.CAP_FFMPEG, code, frame_rate, size):
                kind = f"{size[0]} x {size[1]}, {frame_rate:g} frames a second"
                raise OSError(f"{path}: OpenCV cannot write a video of {kind} there")
        writer.write(cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR))
        frames += 1

    try:
        yield append
        writer.release()
        if frames:
            # OpenCV raises no error when the disk is full; the number is 0 if the file cannot be opened
            written = round(cv2.VideoCapture(str(temporary), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT))
            if written != frames:
                raise OSError(f"{path}: only {written} of {frames} frames written; is the disk full?")
            temporary.replace(path)
    finally:
        writer.release()
        temporary.unlink(missing_ok=True)
