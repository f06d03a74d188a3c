"""Object-wise depth maps: every label box filled with its object's depth (DDML, section 'object-wise depth map')."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from ..structures import Object3d
from ..system.files import atomic_write

CAR_FOLDER, ALL_FOLDER = "obj_depth", "obj_depth_all"
PAINTED_TYPES: dict[str, tuple[str, ...] | None] = {CAR_FOLDER: ("Car",), ALL_FOLDER: None}
"""KITTI types on the maps of each folder; None: all"""
SUFFIXES = (".npy", ".npz")
MIN_DEPTH = 2.0
_CURE = "redo it: make_obj_depth.py --force"


def paint_object_depth(
    objects: Sequence[Object3d], image_size: tuple[int, int], types: Collection[str] | None = None
) -> np.ndarray:
    """Paint far to near; 0 where there is no object.

    Args:
        objects: labels of one frame.
        image_size: (width, height) [px].
        types: KITTI types to paint; None paints all of them.

    Returns:
        (height, width) float32 [m]. A box covers ``round(x1) .. round(x2) - 1`` (Python's rounding, half to even).
        Skipped are objects of difficulty 'UnKnown', nearer than 2 m (so DontCare too), and boxes without area.
    """
    width, height = image_size
    depth_map = np.zeros((height, width), np.float32)
    for obj in sorted(objects, key=lambda o: -o.location_cam[2]):
        depth = obj.location_cam[2]
        if (types is not None and obj.type not in types) or obj.difficulty == "UnKnown" or depth < MIN_DEPTH:
            continue
        x1, y1, x2, y2 = (max(round(v), 0) for v in obj.bbox_img)
        depth_map[y1:y2, x1:x2] = depth
    return depth_map


def find_object_depth(folder: Path, frame_id: str) -> Path:
    """The frame's map in ``folder``, of either format; where there is none, the name of a missing .npy."""
    plain, compressed = (folder / f"{frame_id}{suffix}" for suffix in SUFFIXES)
    return compressed if compressed.is_file() and not plain.is_file() else plain


def write_object_depth(path: Path, depth_map: np.ndarray) -> None:
    """(H, W) float32 [m] -> ``path``, whole or not at all.

    .npy holds the map as it is. .npz holds ``depths`` (N,) float32 [m], the values that occur, and ``index`` (H, W)
    uint8 or uint16, which of them each pixel has: ``depths[index]`` is the map, in 1 to 5 KB, and read in a third of
    the time that it would take to inflate the map itself.
    """
    with atomic_write(path, sync=False) as file:
        if path.suffix == ".npy":
            np.save(file, depth_map)
        else:
            # of every run of equal pixels one: sorting all pixels would take 15 ms
            flat = depth_map.ravel()
            starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
            depths, which = np.unique(flat[starts], return_inverse=True)
            which = which.astype(np.uint8 if len(depths) <= 256 else np.uint16)
            index = np.repeat(which, np.diff(starts, append=flat.size)).reshape(depth_map.shape)
            np.savez_compressed(file, depths=depths, index=index)


def load_object_depth(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """Read a map and check it against its image.

    Raises FileNotFoundError, or ValueError when the file is no float32 map of ``image_size`` (width, height).
    """
    return np.array(map_object_depth(path, image_size))


def check_object_depth(path: Path, image_size: tuple[int, int]) -> None:
    """The same checks from the header alone for .npy; .npz is read."""
    map_object_depth(path, image_size)


def map_object_depth(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """The same without reading all of a .npy: what is not looked at stays on the disk. Not to be written to."""
    try:
        depth_map = _inflate(path) if path.suffix == ".npz" else np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: missing object-wise depth map; make it with make_obj_depth.py") from None
    except Exception as error:  # numpy raises even tokenize.TokenError for a broken header
        raise ValueError(f"{path}: not a {path.suffix} depth map ({error}); {_CURE}") from None
    width, height = image_size
    if not isinstance(depth_map, np.ndarray) or depth_map.shape != (height, width) or depth_map.dtype != np.float32:
        found = f"{getattr(depth_map, 'shape', '')} {getattr(depth_map, 'dtype', 'no array')}"
        raise ValueError(f"{path}: depth map is {found}, its image needs ({height}, {width}) float32; {_CURE}")
    return depth_map


def _inflate(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as content:
        depths, index = content["depths"], content["index"]
    if depths.ndim != 1 or depths.dtype != np.float32 or index.ndim != 2 or index.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"depths {depths.shape} {depths.dtype} and index {index.shape} {index.dtype}, expected (N,) float32 and "
            "(H, W) uint8 or uint16"
        )
    if index.dtype == np.uint16 or not 0 < len(depths) <= 256 or index.size == 0:
        return depths[index]
    if index.max() >= len(depths):
        raise ValueError(f"index {index.max()} into {len(depths)} depths")
    table = np.zeros(256, np.float32)
    table[: len(depths)] = depths
    return cv2.LUT(index, table)  # four times as fast as depths[index]


def folder_for(writelist: Sequence[str]) -> str:
    """Which of the two sets fits the classes that are trained: Car alone, or all types."""
    return CAR_FOLDER if tuple(writelist) == ("Car",) else ALL_FOLDER


