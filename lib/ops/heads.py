"""The heads that are read at object cells: one table for model, targets, losses, decoder and export.

A training frame has K = 50 slots, for the first lines of its label file. A target entry has one row per slot.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .angles import NUM_HEADING_BINS


@dataclass(frozen=True)
class Head:
    """Two convolutions on the neck's features, evaluated only at the cells of objects."""

    channels: int  # output values per cell
    mask: str  # target entry that marks the slots that train it: 'mask_2d', or 'mask_3d' (without cropped samples)
    targets: Mapping[str, tuple[int, type[np.generic]]]  # target entry -> (values per slot, dtype)


OBJECT_HEADS: dict[str, Head] = {
    "offset_2d": Head(2, "mask_2d", {"offset_2d": (2, np.float32)}),
    "size_2d": Head(2, "mask_2d", {"size_2d": (2, np.float32)}),
    "depth": Head(2, "mask_3d", {"depth": (1, np.float32)}),
    "offset_3d": Head(2, "mask_3d", {"offset_3d": (2, np.float32)}),
    "size_3d": Head(3, "mask_3d", {"size_3d": (3, np.float32), "src_size_3d": (3, np.float32)}),
    "heading": Head(2 * NUM_HEADING_BINS, "mask_2d", {"heading_bin": (1, np.int64), "heading_res": (1, np.float32)}),
}  # by name. The order is that of the parameters in official checkpoints: append new heads at the end
