"""Decoded images in memory that all loader workers of a training process share (``dataset.cache: ram``)."""

import logging
import mmap
from collections.abc import Sequence

import numpy as np

from ..system.machine import available_memory

logger = logging.getLogger(__name__)


class ImageCache:
    """Memory for every image of a data set, filled when an image is first decoded.

    The memory is an anonymous mapping: processes that are forked later share it, and it does not count towards
    /dev/shm, which holds only a few MB in many containers. A page takes memory once it is written to.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        """``sizes``: (width, height) [px] of each image. Raises ValueError if the images exceed the free memory."""
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
        """(H, W, 3) uint8, read-only by agreement; None if the image is not in the cache yet."""
        return self._view(index) if self.filled[index] else None

    def put(self, index: int, image: np.ndarray) -> None:
        """``image``: (H, W, 3) uint8, of the size given to the constructor."""
        self._view(index)[...] = image
        self.filled[index] = 1  # last, because other processes may read the image from now on

    def _view(self, index: int) -> np.ndarray:
        width, height = self.sizes[index]
        return self.memory[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)
