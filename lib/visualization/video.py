"""A video file that appears only once it is complete."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

CODEC = "mp4v"
"""MPEG-4 part 2, which every build of OpenCV can write. Media players decode it, browsers do not."""


class VideoFile:
    """Writes frames of one size to an .mp4 file, which appears at the end of a ``with`` block.

    If the block raises an error or writes no frame, no file appears and an older one stays unchanged.
    """

    def __init__(self, path: Path, frame_rate: float) -> None:
        # MPEG-4 divides a second into at most 65535 ticks, so a rate such as 239.9612 has to be rounded
        self.path, self.frames = path, 0
        self.frame_rate = max(round(frame_rate, 3 if frame_rate < 65 else 2), 0.01)
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")  # OpenCV needs the suffix
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame_bgr: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8, BGR; an odd side is padded by one black line. Raises OSError on failure."""
        height, width = frame_bgr.shape[:2]
        if height % 2 or width % 2:  # the codec halves the resolution of colour
            frame_bgr = cv2.copyMakeBorder(frame_bgr, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT)
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*CODEC)
            size = (frame_bgr.shape[1], frame_bgr.shape[0])
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, code, self.frame_rate, size)
            if not self._writer.isOpened():
                kind = f"{size[0]} x {size[1]}, {self.frame_rate:g} frames a second"
                raise OSError(f"{self.path}: OpenCV cannot write a video of {kind} there")
        self._writer.write(frame_bgr)
        self.frames += 1

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
                if kind is None:
                    # OpenCV raises no error when the disk is full
                    reader = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
                    written = round(reader.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 if the file cannot be opened
                    if written != self.frames:
                        raise OSError(f"{self.path}: only {written} of {self.frames} frames written; is the disk full?")
                    self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)
