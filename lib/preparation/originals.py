"""Compare the training images of a copy of KITTI with the originals, by SHA-256."""

import csv
import hashlib
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

from ..config.paths import PROJECT_ROOT
from ..datasets.images import find_image
from ..datasets.kitti import find_data_dir
from ..ops.text import counted
from ..structures import DRIVES_FILE
from ..system.commands import show_progress
from ..system.machine import available_cores
from ..system.threads import map_ahead
from .file_checks import Fault

DIFFERENT, MISSING = "not KITTI's image", "KITTI's image is missing"
COLUMN = "image_2_sha256_16"  # the first 16 hex digits
CHECKSUMS = PROJECT_ROOT / "data" / "KITTI" / DRIVES_FILE  # of all 7481 images


def compare_with_originals(root: Path, frame_ids: Collection[str] | None = None) -> tuple[list[Fault], str]:
    """A fault for each training image that is missing or is not KITTI's file, and a sentence that counts them.

    ``frame_ids``: only these; None: all 7481. Ids that KITTI does not have are counted in the sentence, and no fault.
    Raises FileNotFoundError or ValueError where the repository's file of checksums is missing or replaced.
    """
    with CHECKSUMS.open(newline="") as file:
        table = csv.DictReader(file)
        if COLUMN not in (table.fieldnames or ()):  # rendered data sets have a file of this name too
            raise ValueError(f"{CHECKSUMS}: no column {COLUMN}; get the file of the repository again")
        originals = {row["id"]: row[COLUMN] for row in table}
    if frame_ids is not None and not originals.keys() & set(frame_ids):
        raise ValueError("--verify: no frame of this list has the id of a training frame of KITTI")
    chosen = [(name, digits) for name, digits in originals.items() if frame_ids is None or name in frame_ids]
    compare = partial(_compare, find_data_dir(root, "training") / "image_2")
    found = map_ahead(lambda frame: compare(*frame), chosen, available_cores(), 2 * available_cores())
    faults = [fault for fault in show_progress(found, "comparing", len(chosen), leave=False) if fault]
    kinds = Counter(fault.kind for fault in faults)
    foreign = len(frame_ids) - len(chosen) if frame_ids is not None else 0
    counts = f"{len(chosen) - len(faults)} equal, {kinds[DIFFERENT]} different, {kinds[MISSING]} missing"
    others = f"; not KITTI's, and so not compared: {counted(foreign, 'frame')} of the list" * bool(foreign)
    return faults, f"compared with KITTI's originals: {counted(len(chosen), 'image')}, {counts}{others}"


def _compare(folder: Path, frame_id: str, digits: str) -> Fault | None:
    path = find_image(folder, frame_id)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Fault(MISSING, path, 0, "missing image")
    except OSError as error:
        return Fault(DIFFERENT, path, 0, error.strerror or str(error))
    found = hashlib.sha256(content).hexdigest()[: len(digits)]
    message = f"its SHA-256 starts with {found}, that of KITTI's {frame_id}.png with {digits} ({len(content)} bytes)"
    return None if found == digits else Fault(DIFFERENT, path, 0, message)
