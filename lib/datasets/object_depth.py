"""Object-wise depth maps: every pixel of a label's 2D box has the depth of its object, as in DDML's published code."""

import io
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ..structures import MIN_DEPTH, Object3d
from ..system.files import atomic_write

CAR_FOLDER, ALL_FOLDER = "obj_depth", "obj_depth_all"
PAINTED_TYPES: dict[str, tuple[str, ...] | None] = {CAR_FOLDER: ("Car",), ALL_FOLDER: None}
"""KITTI types on the maps of each folder; None: all"""
SUFFIXES = (".npy", ".npz")
_REMEDY = "redo it: make_obj_depth.py --force"


def folder_for(writelist: Sequence[str]) -> str:
    """The folder whose maps fit the trained classes: maps of cars if Car is the only class, otherwise of all types."""
    return CAR_FOLDER if tuple(writelist) == ("Car",) else ALL_FOLDER


def paint_object_depth(
    objects: Sequence[Object3d], image_size: tuple[int, int], types: Collection[str] | None = None
) -> np.ndarray:
    """Paint the boxes of a frame's labels, far objects first; pixels without an object are 0.

    Args:
        objects: labels of one frame.
        image_size: (width, height) [px].
        types: KITTI types to paint; None: all.

    Returns:
        (height, width) float32 [m]. A box covers ``round(x1) .. round(x2) - 1`` (Python's rounding, half to even).
        Left out are objects of difficulty 'UnKnown' and objects nearer than 2 m, such as DontCare (z = -1000).
    """
    painted = [o for o in objects if (types is None or o.type in types) and o.difficulty != "UnKnown"]
    painted = [o for o in painted if o.location_cam[2] >= MIN_DEPTH]
    return paint_boxes([o.bbox_img for o in painted], [o.location_cam[2] for o in painted], image_size)


def paint_boxes(
    boxes: Sequence[Sequence[float]] | np.ndarray, depths: Sequence[float] | np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Paint boxes with their depths, far ones first; pixels without a box are 0.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 [px].
        depths: (N,) [m].
        size: (width, height) of the map [px].

    Returns:
        (height, width) float32 [m]. A box covers ``round(x1) .. round(x2) - 1`` (Python's rounding, half to even).

    Raises ValueError where the numbers of boxes and depths differ.
    """
    depth_map = np.zeros(size[::-1], np.float32)
    for depth, box in sorted(zip(depths, boxes, strict=True), key=lambda pair: -pair[0]):
        x1, y1, x2, y2 = (max(round(float(v)), 0) for v in box)
        depth_map[y1:y2, x1:x2] = depth
    return depth_map


def find_object_depth(folder: Path, frame_id: str) -> Path:
    """Path of the frame's map in ``folder``, .npy before .npz; of a missing .npy where there is none."""
    plain, compressed = (folder / f"{frame_id}{suffix}" for suffix in SUFFIXES)
    return compressed if compressed.is_file() and not plain.is_file() else plain


def write_object_depth(path: Path, depth_map: np.ndarray) -> None:
    """Write (H, W) float32 [m] atomically, in the format of the path's suffix.

    .npy: the map itself. .npz: ``depths`` (N,) float32 [m], the values that occur, and ``index`` (H, W) uint8 or
    uint16, so that ``depths[index]`` is the map. Such a file has 1 to 5 KB.
    """
    with atomic_write(path, sync=False) as file:
        if path.suffix == ".npy":
            # not to the file itself: numpy's error for a full disk names neither disk nor file
            content = io.BytesIO()
            np.save(content, depth_map)
            file.write(content.getbuffer())
        else:
            # np.unique sorts its input, so it gets one pixel of each run of equal pixels
            flat = depth_map.ravel()
            starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
            depths, which = np.unique(flat[starts], return_inverse=True)
            which = which.astype(np.uint8 if len(depths) <= 256 else np.uint16)
            index = np.repeat(which, np.diff(starts, append=flat.size)).reshape(depth_map.shape)
            np.savez_compressed(file, depths=depths, index=index)


def read_object_depth(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """Read a map and check it against its image. An .npy is memory-mapped, read-only: only its header is read now.

    Raises FileNotFoundError, or ValueError when the file is no float32 map of ``image_size`` (width, height).
    """
    try:
        packed = path.suffix == ".npz"
        depth_map = _read_npz(path, image_size) if packed else np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: missing object-wise depth map; make it with make_obj_depth.py") from None
    except Exception as error:  # numpy raises even tokenize.TokenError for a broken header
        raise ValueError(f"{path}: not a {path.suffix} depth map ({error}); {_REMEDY}") from None
    width, height = image_size
    if not isinstance(depth_map, np.ndarray) or depth_map.shape != (height, width) or depth_map.dtype != np.float32:
        found = f"{getattr(depth_map, 'shape', '')} {getattr(depth_map, 'dtype', 'no array')}"
        raise ValueError(f"{path}: depth map is {found}, its image needs ({height}, {width}) float32; {_REMEDY}")
    return depth_map


def _read_npz(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    heads = []
    with zipfile.ZipFile(path) as archive:
        for name in ("depths", "index"):
            with archive.open(f"{name}.npy") as member:
                if np.lib.format.read_magic(member) != (1, 0):
                    raise ValueError(f"{name} is not in version 1.0 of numpy's format")
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
                heads.append((shape, dtype))
    (n_depths, depth_type), (shape, index_type) = heads
    # before anything is decompressed: a small file can hold zeros that fill the memory
    small = len(n_depths) == 1 and n_depths[0] <= 1 << 16 and len(shape) == 2
    if not small or depth_type != np.float32 or index_type not in (np.uint8, np.uint16):
        raise ValueError(
            f"depths {n_depths} {depth_type} and index {shape} {index_type}, expected (N,) float32, N up to 65536, and "
            "(H, W) uint8 or uint16"
        )
    if shape != image_size[::-1]:
        return np.broadcast_to(np.float32(0), shape)  # takes no memory; its shape is refused by the caller
    with np.load(path, allow_pickle=False) as content:
        return content["depths"].take(content["index"])
