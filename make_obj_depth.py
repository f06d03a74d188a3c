#!/usr/bin/env python3
"""Paint object-wise depth maps from KITTI labels, before training with general.obj_depth.

Writes training/obj_depth (Car) and training/obj_depth_all (all types), one %06d.npy a frame: float32 (H, W), metres.
With --format npz the maps are stored without loss in 1 to 5 KB instead of 1.9 MB each; training reads either.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from lib.datasets.images import find_image, read_image_size
from lib.datasets.kitti import find_data_dir, find_label_dir
from lib.datasets.object_depth import (
    PAINTED_TYPES,
    SUFFIXES,
    check_object_depth,
    paint_object_depth,
    write_object_depth,
)
from lib.structures import read_objects
from lib.system.commands import progress_interval, run_command
from lib.system.machine import available_cores, leave_ctrl_c_to_parent


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--path", metavar="ROOT", default=str(Path(__file__).resolve().parent), help="uses ROOT/data/KITTI"
    )
    parser.add_argument("--dataroot", metavar="DIR", help="a KITTI folder elsewhere; instead of --path")
    parser.add_argument(
        "--force", action="store_true", help="redo all maps; those older than their label are redone anyway"
    )
    parser.add_argument(
        "--format",
        choices=[suffix[1:] for suffix in SUFFIXES],
        default="npy",
        help="npy (default), as the official code reads them; npz: compressed. A frame's map of the other format is "
        "deleted once the new one is there",
    )
    args = parser.parse_args(argv)
    root = Path(args.dataroot) if args.dataroot else Path(args.path) / "data" / "KITTI"
    return run_command(lambda: make_object_depth(root, args.force, f".{args.format}"))


def make_object_depth(root: Path, force: bool = False, suffix: str = ".npy") -> int:
    """Both sets for every label file below ``root``. Raises FileNotFoundError or ValueError for the first bad file."""
    training = find_data_dir(root, "training")
    label_dir = find_label_dir(training)
    labels = sorted(label_dir.glob("*.txt"))
    if not labels:
        raise FileNotFoundError(f"{label_dir}: no label files (*.txt)")
    painted = [path for path in labels if find_image(training / "image_2", path.stem).is_file()]
    for name in PAINTED_TYPES:
        (training / name).mkdir(exist_ok=True)
    written = deleted = 0
    with multiprocessing.Pool(min(available_cores(), 16), leave_ctrl_c_to_parent) as pool:
        work = pool.imap_unordered(partial(paint_frame, training, force, suffix), painted, chunksize=16)
        try:
            interval = progress_interval()
            for new, old in tqdm(work, "object-wise depth", len(painted), unit="frame", mininterval=interval):
                written, deleted = written + new, deleted + old
        except (OSError, ValueError) as error:
            raise ValueError(f"{error} ({written} maps were written before that; they are whole)") from None
    total = len(painted) * len(PAINTED_TYPES)
    print(f"{written} maps written, {total - written} were there already: {training}/{{{','.join(PAINTED_TYPES)}}}")
    if deleted:
        print(f"{deleted} maps of the other format were deleted")
    if len(painted) < len(labels):
        print(f"{len(labels) - len(painted)} label files without an image in {training / 'image_2'} were left out")
    return 0


def paint_frame(training: Path, force: bool, suffix: str, label: Path) -> tuple[int, int]:
    """Write the maps of one frame that are missing, unfit or older than the label, or all.

    Returns how many maps were written, and how many of the other format were deleted.
    """
    size = read_image_size(find_image(training / "image_2", label.stem))
    targets = {name: training / name / f"{label.stem}{suffix}" for name in PAINTED_TYPES}
    wanted = [name for name, path in targets.items() if force or not _is_there(path, size, label)]
    objects = read_objects(label) if wanted else []
    for name in wanted:
        write_object_depth(targets[name], paint_object_depth(objects, size, PAINTED_TYPES[name]))
    others = [path.with_suffix(other) for path in targets.values() for other in SUFFIXES if other != suffix]
    superseded = [path for path in others if path.is_file()]
    for path in superseded:
        path.unlink()
    return len(wanted), len(superseded)


def _is_there(path: Path, size: tuple[int, int], label: Path) -> bool:
    try:
        check_object_depth(path, size)
    except (FileNotFoundError, ValueError):
        return False
    return path.stat().st_mtime >= label.stat().st_mtime


if __name__ == "__main__":
    sys.exit(main())
