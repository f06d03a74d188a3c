"""Labels -> training targets on the stride-4 map, by the rules of MonoDLE's published KITTI data set.

Frames: ``_img`` pixels of the original image, ``_net`` network input, ``_map`` stride-4 cells.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..config import Dataset
from ..config.dataset import MERGED_INTO_CAR
from ..ops.affine import STRIDE
from ..ops.angles import angle_to_bin
from ..ops.gaussian import draw_gaussian, gaussian_radius
from ..ops.heads import OBJECT_HEADS
from ..structures import Calibration, Object3d
from .augmentation import Augmentation


def encode_targets(
    objects: Sequence[Object3d], calibration: Calibration, augmentation: Augmentation, config: Dataset
) -> dict[str, np.ndarray]:
    """Targets of one frame, in K = ``max_objects`` slots. The slot of an object is its line number in the label file.

    As in the published code, lines are counted before filtering, so objects after the first K lines are left out. An
    object is encoded if its type is in the writelist, its difficulty is not 'UnKnown', its dimensions are positive, its
    depth z is in ``min_depth`` .. ``max_depth`` and its cell lies in the map.

    Returns, for a map of h x w cells:
        heatmap (classes, h, w) float32; indices (K,) int64, y * w + x;
        offset_2d, size_2d, offset_3d (K, 2) float32 [cells];
        depth (K, 1) float32 [m], multiplied by the scale of the crop;
        size_3d (K, 3) [m; h, w, l], minus the class mean with ``meanshape``; src_size_3d (K, 3), the full size;
        heading_bin (K, 1) int64; heading_res (K, 1) float32 [rad];
        mask_2d, mask_3d (K,) bool; mask_3d is False on cropped samples.
    """
    width, height = config.resolution[0] // STRIDE, config.resolution[1] // STRIDE  # of the map
    targets = empty_targets(width, height, config)
    for slot, obj in enumerate(objects[: config.max_objects]):
        if explain_exclusion(slot, obj, config):
            continue
        place = locate(obj, calibration, augmentation, config)
        if place is None:
            continue
        cell, box_map, center_2d, center_3d = place
        size_2d = box_map[2:] - box_map[:2]
        radius = max(0, int(gaussian_radius(size_2d[0], size_2d[1])))
        merged = _is_merged(obj, config)
        channel = config.class_names.index("Car" if merged else obj.type)
        draw_gaussian(targets["heatmap"][channel], (int(cell[0]), int(cell[1])), radius)
        if merged:
            continue
        targets["indices"][slot] = cell[1] * width + cell[0]
        targets["offset_2d"][slot] = center_2d - cell
        targets["size_2d"][slot] = size_2d
        targets["offset_3d"][slot] = center_3d - cell
        targets["depth"][slot] = obj.location_cam[2] * augmentation.window_scale
        targets["src_size_3d"][slot] = obj.dimensions
        mean = config.known_sizes[obj.type] if config.meanshape else (0.0, 0.0, 0.0)
        targets["size_3d"][slot] = np.subtract(obj.dimensions, mean)
        targets["heading_bin"][slot], targets["heading_res"][slot] = angle_to_bin(augmentation.object3d(obj).alpha)
        targets["mask_2d"][slot] = True
        targets["mask_3d"][slot] = not augmentation.crop
    return targets


def explain_exclusion(line: int, obj: Object3d, config: Dataset) -> str | None:
    """Why a label is not encoded, whatever the image; None for one that is encoded if its cell lies in the map.

    'line' (of the label file, from 0): after the first ``max_objects``; 'class': not in the writelist; 'difficulty':
    'UnKnown'; 'near': nearer than ``min_depth``; 'far': beyond ``max_depth``; 'size': a dimension that is not positive.
    """
    if line >= config.max_objects:
        return "line"
    if obj.type not in config.writelist and not _is_merged(obj, config):
        return "class"
    if obj.difficulty == "UnKnown":
        return "difficulty"
    if min(obj.dimensions) <= 0:
        return "size"
    depth = obj.location_cam[2]
    return "near" if depth < config.min_depth else "far" if depth > config.max_depth else None


def _is_merged(obj: Object3d, config: Dataset) -> bool:
    return config.class_merging and obj.type in MERGED_INTO_CAR


def empty_targets(map_width: int, map_height: int, config: Dataset) -> dict[str, np.ndarray]:
    """Targets of a frame without objects: the entries of :func:`encode_targets`, all 0."""
    entries = {name: entry for head in OBJECT_HEADS.values() for name, entry in head.targets.items()}
    slots = config.max_objects
    return {
        "heatmap": np.zeros((len(config.class_names), map_height, map_width), np.float32),
        "indices": np.zeros(slots, np.int64),
        **{name: np.zeros((slots, values), dtype) for name, (values, dtype) in entries.items()},
        **{name: np.zeros(slots, bool) for name in ("mask_2d", "mask_3d")},
    }


class Place(NamedTuple):
    """Where an object lies on the map, in cells."""

    cell: np.ndarray  # (2,) int64, (x, y) of the heatmap's peak
    box_map: np.ndarray  # (4,) 2D box
    center_2d: np.ndarray  # (2,) its centre
    center_3d: np.ndarray  # (2,) projected 3D centre


def locate(obj: Object3d, calibration: Calibration, augmentation: Augmentation, config: Dataset) -> Place | None:
    """Project an object to the map; None where its cell is outside."""
    to_input = augmentation.to_input(config.resolution)
    box_img = np.reshape(obj.bbox_img, (2, 2))
    if config.bbox2d_type == "proj":
        corners_img = calibration.project_homogeneous(obj.corners_cam())
        box_img = np.stack([corners_img.min(axis=0), corners_img.max(axis=0)])
    box_img = augmentation.points(box_img)
    box_img = np.stack([box_img.min(axis=0), box_img.max(axis=0)])  # a flip exchanges left and right
    x, y, z = obj.location_cam
    center_img = augmentation.points(calibration.project(np.array([[x, y - obj.dimensions[0] / 2, z]])))
    box_map = to_input.apply(box_img) / STRIDE
    center_2d, center_3d = box_map.mean(axis=0), to_input.apply(center_img)[0] / STRIDE
    # astype rounds towards zero: a centre less than one cell left of or above the map gets the map's first cell
    cell = (center_3d if config.use_3d_center else center_2d).astype(np.int64)
    width, height = config.resolution
    inside = 0 <= cell[0] < width // STRIDE and 0 <= cell[1] < height // STRIDE
    return Place(cell, box_map.ravel(), center_2d, center_3d) if inside else None
