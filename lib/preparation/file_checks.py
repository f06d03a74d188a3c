"""Find everything that is wrong with a file of a KITTI tree: the reading code stops at the first fault.

Each function returns a list of faults, and what it has read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import Dataset
from ..datasets.images import read_image, read_image_header, uses_12_of_16_bits
from ..datasets.object_depth import PAINTED_TYPES, paint_object_depth, read_object_depth
from ..structures import KITTI_TYPES, UNKNOWN_ALPHA, Calibration, Object3d, scan_objects, scan_split

BOX_SLACK = 1.0  # [px] that a 2D box may exceed the image: annotation tools differ in where a pixel ends


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong."""

    kind: str
    path: Path
    line: int  # from 1; 0: the file as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.path}{f', line {self.line}' if self.line else ''}: {self.message}"


def check_image(
    path: Path, max_pixels: int | None = Dataset.max_image_pixels
) -> tuple[list[Fault], tuple[int, int] | None]:
    """Faults, and the image's (width, height) [px], None if its header cannot be read."""
    size = None
    try:
        header = read_image_header(path, max_pixels)
        size, image = header.size, read_image(path, max_pixels=None)
    except FileNotFoundError:
        return [Fault("missing file", path, 0, "missing image")], None
    except (ValueError, OSError) as error:
        return [Fault("unreadable image", path, 0, _without(path, error))], size
    faults = []
    if image.shape[1::-1] != size:
        message = f"its header states {size}, decoded is {image.shape[1::-1]}"
        faults.append(Fault("unreadable image", path, 0, message))
    if header.orientation != 1:
        message = f"EXIF orientation {header.orientation} is ignored: labels must refer to the stored pixels"
        faults.append(Fault("turned image", path, 0, message))
    if uses_12_of_16_bits(header, image):
        message = "its 16 bits hold values of 12 bits at most, so it is read as nearly black; scale them to 16 bits"
        faults.append(Fault("dark image", path, 0, message))
    return faults, size


def check_calibration(path: Path) -> tuple[list[Fault], Calibration | None]:
    """Faults, and the camera, None if it cannot be read."""
    try:
        calibration = Calibration.from_file(path)
    except FileNotFoundError:
        return [Fault("missing file", path, 0, "missing calibration")], None
    except (ValueError, OSError) as error:
        return [Fault("malformed calibration", path, 0, _without(path, error))], None
    if 0.5 < calibration.fu / calibration.fv < 2:
        return [], calibration
    message = f"focal lengths of {calibration.fu:g} and {calibration.fv:g} px differ too much"
    return [Fault("focal lengths differ", path, 0, message)], calibration


def check_label(
    path: Path, size: tuple[int, int] | None, types: Sequence[str] = KITTI_TYPES
) -> tuple[list[Fault], list[Object3d]]:
    """Faults and readable objects of a label file. ``size``: the image's (width, height) [px] if it is known."""
    faults: list[Fault] = []
    line_of: dict[Object3d, int] = {}
    objects: list[Object3d] = []
    try:
        for line, found in scan_objects(path, class_names=types):
            if isinstance(found, ValueError):
                kind = "not a finite number" if "finite number" in str(found) else "malformed line"
                faults.append(Fault(kind, path, line, str(found)))
                continue
            objects.append(found)
            faults += [Fault(kind, path, line, message) for kind, message in object_faults(found, size, types)]
            if line_of.setdefault(found, line) != line:
                faults.append(Fault("repeated object", path, line, f"the same as line {line_of[found]}"))
    except FileNotFoundError:
        return [Fault("missing file", path, 0, "missing label file")], []
    except (ValueError, OSError) as error:
        return [Fault("malformed line", path, 0, _without(path, error))], []
    return faults, objects


def object_faults(
    obj: Object3d, size: tuple[int, int] | None, types: Sequence[str] = KITTI_TYPES
) -> list[tuple[str, str]]:
    """(kind, message) of everything that is wrong with the values of a label."""
    x1, y1, x2, y2 = obj.bbox_img
    found = []
    if obj.type not in types:
        known = f"{', '.join(types)}; --config or --types names your own"
        found.append(("unknown type", f"{obj.type!r} is none of {known}"))
    if x2 <= x1 or y2 <= y1:
        found.append(("box without area", f"2D box {obj.bbox_img}"))
    width, height = size or (math.inf, math.inf)
    if min(x1, y1) < -BOX_SLACK or x2 > width + BOX_SLACK or y2 > height + BOX_SLACK:
        found.append(("box outside the image", f"2D box {obj.bbox_img}, image {width} x {height}"))
    if obj.type == "DontCare":
        return found
    if min(obj.dimensions) <= 0:
        found.append(("size not positive", f"height, width, length {obj.dimensions}"))
    if senseless := obj.find_senseless():
        found.append(("value out of range", senseless))
    if not 0 <= obj.truncated <= 1:
        found.append(("value out of range", f"truncated is {obj.truncated:g}, expected 0 .. 1"))
    if obj.occluded not in (0, 1, 2, 3):
        found.append(("value out of range", f"occluded is {obj.occluded}, expected 0, 1, 2 or 3"))
    for name, angle in (("alpha", obj.alpha), ("rotation_y", obj.rotation_y)):
        if abs(angle) > math.pi + 0.01 and (name, angle) != ("alpha", UNKNOWN_ALPHA):  # labels have two decimals
            found.append(("value out of range", f"{name} is {angle:g}, expected -pi .. pi"))
    if obj.location_cam[2] <= 0 and obj.truncated < 0.95:  # the centre of a long vehicle may be behind the camera
        found.append(("behind the camera", f"z is {obj.location_cam[2]:g} m, but it is not truncated"))
    return found


def check_depth_map(
    path: Path, label: Path, objects: Sequence[Object3d] | None, size: tuple[int, int] | None
) -> list[Fault]:
    """Compare an object-wise depth map with its image's size and its label's age and, with ``objects``, content."""
    if not path.is_file():
        return [Fault("missing file", path, 0, "missing object-wise depth map; make it with make_obj_depth.py")]
    if size is None:
        return []
    try:
        depth_map = read_object_depth(path, size)
    except (ValueError, OSError) as error:
        kind = "depth map of another size" if "its image needs" in str(error) else "unreadable depth map"
        return [Fault(kind, path, 0, _without(path, error))]
    if objects is None:  # the label has faults of its own
        return []
    equal = np.array_equal(paint_object_depth(objects, size, PAINTED_TYPES[path.parent.name]), depth_map)
    if path.stat().st_mtime < label.stat().st_mtime:
        content = "its content is nevertheless right" if equal else "its content is wrong"
        message = f"{label} is newer; {content}; make_obj_depth.py redoes it"
        return [Fault("depth map older than its label", path, 0, message)]
    return [] if equal else [Fault("depth map unlike its label", path, 0, "redo it: make_obj_depth.py --force")]


def check_split(path: Path) -> tuple[list[Fault], dict[str, int]]:
    """Faults of a split file, and the line of each frame id."""
    try:
        ids, faults = scan_split(path)
    except FileNotFoundError as error:
        return [Fault("missing file", path, 0, _without(path, error))], {}
    except OSError as error:
        return [Fault("malformed split", path, 0, _without(path, error))], {}
    kinds = {True: "duplicate id", False: "malformed split"}
    return [Fault(kinds[repeated], path, line, message) for line, message, repeated in faults], ids


def check_overlap(train: Path, val: Path, in_train: dict[str, int], in_val: dict[str, int]) -> list[Fault]:
    """Find frames that are used for training and evaluation."""
    return [
        Fault("frame in train and val", val, number, f"frame {frame_id} is on line {in_train[frame_id]} of {train}")
        for frame_id, number in in_val.items()
        if frame_id in in_train
    ]


def _without(path: Path, error: Exception) -> str:
    """The error's message without the path at its start."""
    return str(error).removeprefix(str(path)).lstrip(":, ")
