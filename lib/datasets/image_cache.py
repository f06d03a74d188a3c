"""Decoded images, kept in memory that all loader processes of a training process share (``dataset.cache: ram``)."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Sequence

import numpy as np

from ..system.machine import available_memory

logger = logging.getLogger(__name__)


class ImageCache:
    """One place for each image, filled when it is first decoded.

    The memory is an anonymous mapping: processes that are forked later share it, and it does not count towards the
    few MB that /dev/shm has in many containers. The system hands out its pages as they are filled.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        """``sizes``: (width, height) [px] of each image. Raises ValueError where they would not fit into memory."""
        self.sizes = list(sizes)
        lengths = [width * height * 3 for width, height in sizes]
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        needed, free = int(self.starts[-1]), available_memory()
        logger.info("dataset.cache: %d decoded images will take %.2f GB of memory", len(sizes), needed / 1e9)
        if free is not None and needed > free:
            raise ValueError(
                f"dataset.cache=ram needs {needed / 1e9:.2f} GB for {len(sizes)} images and {free / 1e9:.2f} GB "
                "are free; set dataset.cache to none"
            )
        self.memory = np.frombuffer(mmap.mmap(-1, needed + len(sizes) + 1), np.uint8)
        self.filled = self.memory[needed:]

    def get(self, index: int) -> np.ndarray | None:
        """(H, W, 3) uint8, not to be written to; or None where it has not been put there yet."""
        return self._place(index) if self.filled[index] else None

    def put(self, index: int, image: np.ndarray) -> None:
        """``image``: (H, W, 3) uint8, of the size that was announced."""
        self._place(index)[...] = image
        self.filled[index] = 1  # only now: another process may look at any time

    def _place(self, index: int) -> np.ndarray:
        width, height = self.sizes[index]
        return self.memory[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)
