"""What is wrong with a KITTI tree, all of it: the reading code stops at the first fault, this goes on."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..structures import Calibration, Object3d, read_split
from .images import find_image, read_image, read_image_size
from .object_depth import (
    PAINTED_TYPES,
    find_object_depth,
    load_object_depth,
    paint_object_depth,
)

TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare")
BOX_SLACK = 1.0
"""[px] that a 2D box may reach over the image's edge: annotation tools differ in where a pixel ends"""


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong."""

    kind: str
    path: Path
    line: int
    """from 1; 0 where the file as a whole is meant"""
    message: str

    def __str__(self) -> str:
        return f"{self.path}{f', line {self.line}' if self.line else ''}: {self.message}"


@dataclass(frozen=True)
class Places:
    """The folders of one half of the data (training or testing)."""

    images: Path
    calibrations: Path
    labels: Path | None
    depth_maps: tuple[Path, ...] = ()
    """those of obj_depth and obj_depth_all that exist"""


def check_frame(places: Places, frame_id: str, types: Sequence[str] = TYPES) -> list[Fault]:
    """Every file of a frame, read as training reads it: the image is decoded, the depth maps are painted again."""
    faults, size = check_image(find_image(places.images, frame_id))
    faults += check_calibration(places.calibrations / f"{frame_id}.txt")
    if places.labels is None:
        return faults
    label = places.labels / f"{frame_id}.txt"
    found, objects = check_label(label, size, types)
    faults += found
    for folder in places.depth_maps:
        faults += check_depth_map(find_object_depth(folder, frame_id), label, None if found else objects, size)
    return faults


def check_image(path: Path) -> tuple[list[Fault], tuple[int, int] | None]:
    """Also returns (width, height) [px], or None where nothing could be read."""
    try:
        size = read_image_size(path)
    except FileNotFoundError:
        return [Fault("missing file", path, 0, "missing image")], None
    except (ValueError, OSError) as error:
        return [Fault("unreadable image", path, 0, _without(path, error))], None
    try:
        image = read_image(path)
    except ValueError as error:
        return [Fault("unreadable image", path, 0, _without(path, error))], size
    if image.shape[:2] != size[::-1]:
        return [Fault("unreadable image", path, 0, f"its header says {size}, it has {image.shape[1::-1]}")], size
    return [], size


def check_calibration(path: Path) -> list[Fault]:
    """P2 must be there, and the matrix of a camera: (f 0 c t; 0 f c t; 0 0 1 t)."""
    try:
        calibration = Calibration.from_file(path)
    except FileNotFoundError:
        return [Fault("missing file", path, 0, "missing calibration")]
    except (ValueError, OSError) as error:
        return [Fault("malformed calibration", path, 0, _without(path, error))]
    P2 = calibration.P2
    wrong = [
        f"P2[{row}, {column}] is {P2[row, column]:g}, expected {value}"
        for row, column, value in ((0, 1, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0), (2, 2, 1))
        if abs(P2[row, column] - value) > 1e-6
    ]
    if not wrong and not 0.5 < calibration.fu / calibration.fv < 2:
        wrong = [f"focal lengths of {calibration.fu:g} and {calibration.fv:g} px differ too much"]
    return [Fault("calibration not projective", path, 0, wrong[0])] if wrong else []


def check_label(
    path: Path, size: tuple[int, int] | None, types: Sequence[str] = TYPES
) -> tuple[list[Fault], list[Object3d]]:
    """A label file, against its image's size (width, height) [px] if that is known; and the objects it holds."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return [Fault("missing file", path, 0, "missing label file")], []
    except UnicodeDecodeError as error:
        return [Fault("malformed line", path, 0, f"not a text file (byte {error.start} is not ASCII)")], []
    except OSError as error:
        return [Fault("malformed line", path, 0, _without(path, error))], []
    faults: list[Fault] = []
    objects: list[Object3d] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            obj = Object3d.from_line(line, "")
        except ValueError as error:
            kind = "not a finite number" if _holds_no_number(line) else "malformed line"
            faults.append(Fault(kind, path, number, str(error).lstrip(": ")))
            continue
        objects.append(obj)
        faults += [Fault(kind, path, number, message) for kind, message in object_faults(obj, size, types)]
        if line in first:
            faults.append(Fault("repeated object", path, number, f"the same as line {first[line]}"))
        first.setdefault(line, number)
    return faults, objects


def object_faults(obj: Object3d, size: tuple[int, int] | None, types: Sequence[str] = TYPES) -> list[tuple[str, str]]:
    """(kind, message) of everything that is wrong with a label line whose numbers could be read."""
    x1, y1, x2, y2 = obj.bbox_img
    found = []
    if obj.type not in types:
        found.append(("unknown type", f"{obj.type!r} is none of {', '.join(types)}"))
    if x2 <= x1 or y2 <= y1:
        found.append(("box without area", f"2D box {obj.bbox_img}"))
    width, height = size or (math.inf, math.inf)
    if min(x1, y1) < -BOX_SLACK or x2 > width + BOX_SLACK or y2 > height + BOX_SLACK:
        found.append(("box outside the image", f"2D box {obj.bbox_img}, image {width} x {height}"))
    if obj.type == "DontCare":
        return found
    if min(obj.dimensions) <= 0:
        found.append(("size not positive", f"height, width, length {obj.dimensions}"))
    if not 0 <= obj.truncated <= 1:
        found.append(("value out of range", f"truncated is {obj.truncated:g}, expected 0 .. 1"))
    if obj.occluded not in (0, 1, 2, 3):
        found.append(("value out of range", f"occluded is {obj.occluded}, expected 0, 1, 2 or 3"))
    for name, angle in (("alpha", obj.alpha), ("rotation_y", obj.rotation_y)):
        if abs(angle) > math.pi + 0.01:  # labels have two decimals
            found.append(("value out of range", f"{name} is {angle:g}, expected -pi .. pi"))
    if obj.location_cam[2] <= 0 and obj.truncated < 0.95:  # a long one that is passed has its centre behind the camera
        found.append(("behind the camera", f"z is {obj.location_cam[2]:g} m, but it is not truncated"))
    return found


def check_depth_map(
    path: Path, label: Path, objects: Sequence[Object3d] | None, size: tuple[int, int] | None
) -> list[Fault]:
    """An object-wise depth map against its image's size, its label's age, and (with ``objects``) its content."""
    if not path.is_file():
        return [Fault("missing file", path, 0, "missing object-wise depth map; make it with make_obj_depth.py")]
    if size is None:
        return []
    try:
        depth_map = load_object_depth(path, size)
    except (ValueError, OSError) as error:
        kind = "depth map of another size" if "its image needs" in str(error) else "unreadable depth map"
        return [Fault(kind, path, 0, _without(path, error))]
    if objects is None:  # the label has faults of its own
        return []
    right = np.array_equal(paint_object_depth(objects, size, PAINTED_TYPES[path.parent.name]), depth_map)
    if path.stat().st_mtime < label.stat().st_mtime:
        content = "its content is right all the same" if right else "its content is wrong"
        message = f"{label} is newer; {content}; make_obj_depth.py makes it anew"
        return [Fault("depth map older than its label", path, 0, message)]
    return [] if right else [Fault("depth map unlike its label", path, 0, "redo it: make_obj_depth.py --force")]


def check_split(path: Path) -> tuple[list[Fault], dict[str, int]]:
    """A list of frames; and the ids that it holds, with their lines."""
    try:
        return [], {frame_id: number for number, frame_id in enumerate(read_split(path), 1)}
    except FileNotFoundError:
        return [Fault("missing file", path, 0, "missing split file")], {}
    except (ValueError, OSError) as error:
        whole = _without(path, error)
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (UnicodeDecodeError, OSError):
        return [Fault("malformed split", path, 0, whole)], {}
    faults: list[Fault] = []
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        frame_id = line.strip()
        if not frame_id:
            continue
        if not re.fullmatch(r"[0-9A-Za-z_-]+", frame_id):
            message = f"expected one frame id such as 000123, got {frame_id[:60]!r}"
            faults.append(Fault("malformed split", path, number, message))
        elif frame_id in ids:
            faults.append(Fault("duplicate id", path, number, f"frame {frame_id} is already on line {ids[frame_id]}"))
        else:
            ids[frame_id] = number
    return faults or [Fault("malformed split", path, 0, whole)], ids


def check_overlap(train: Path, val: Path, in_train: dict[str, int], in_val: dict[str, int]) -> list[Fault]:
    """Frames that would be trained and evaluated on."""
    return [
        Fault("frame in train and val", val, number, f"frame {frame_id} is on line {in_train[frame_id]} of {train}")
        for frame_id, number in in_val.items()
        if frame_id in in_train
    ]


def _holds_no_number(line: str) -> bool:
    """Whether a column is written as NaN or infinity."""
    return any(word.strip("+-").lower() in ("nan", "inf", "infinity") for word in line.split()[1:])


def _without(path: Path, error: Exception) -> str:
    """The error's text without the path at its head."""
    return str(error).removeprefix(str(path)).lstrip(":, ")
