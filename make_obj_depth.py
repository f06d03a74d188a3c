#!/usr/bin/env python3
"""Paint object-wise depth maps from KITTI labels, before training with general.obj_depth.

Writes training/obj_depth (Car) and training/obj_depth_all (all types), one %06d.npy a frame: float32 (H, W), metres.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lib.datasets.object_depth import ALL_FOLDER, CAR_FOLDER, paint_object_depth, read_image_size
from lib.engine.runtime import run_command
from lib.files import atomic_write
from lib.structures import read_objects

SETS = {CAR_FOLDER: ("Car",), ALL_FOLDER: None}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--path", metavar="ROOT", default=str(Path(__file__).resolve().parent), help="uses ROOT/data/KITTI"
    )
    parser.add_argument("--dataroot", metavar="DIR", help="a KITTI folder elsewhere; instead of --path")
    parser.add_argument("--force", action="store_true", help="redo maps that are there already")
    args = parser.parse_args(argv)
    root = Path(args.dataroot) if args.dataroot else Path(args.path) / "data" / "KITTI"
    return run_command(lambda: make_object_depth(root, args.force))


def make_object_depth(root: Path, force: bool = False) -> int:
    """Both sets for every label file below ``root``. Raises FileNotFoundError or ValueError for the first bad file."""
    training = next((d for d in (root / "training", root / "object" / "training") if d.is_dir()), None)
    if training is None:
        raise FileNotFoundError(f"{root}: no folder training (or object/training); expected KITTI's layout")
    label_dir = next((d for d in (training / "label_2", training / "label") if d.is_dir()), None)
    if label_dir is None:
        raise FileNotFoundError(f"{training}: no folder label_2 (or label)")
    labels = sorted(label_dir.glob("*.txt"))
    if not labels:
        raise FileNotFoundError(f"{label_dir}: no label files (*.txt)")
    for name in SETS:
        (training / name).mkdir(exist_ok=True)
    with multiprocessing.Pool(min(os.cpu_count() or 1, 16)) as pool:
        work = pool.imap_unordered(partial(paint_frame, training, force), labels, chunksize=16)
        written = sum(tqdm(work, "object-wise depth", total=len(labels), unit="frame", dynamic_ncols=True))
    total = len(labels) * len(SETS)
    print(f"{written} maps written, {total - written} were there already: {training}/{{{','.join(SETS)}}}")
    return 0


def paint_frame(training: Path, force: bool, label: Path) -> int:
    """Write the maps of one frame that are missing (all of them with ``force``). Returns how many were written."""
    targets = {name: training / name / f"{label.stem}.npy" for name in SETS}
    wanted = [name for name, path in targets.items() if force or not path.exists()]
    if not wanted:
        return 0
    objects = read_objects(label)
    size = read_image_size(training / "image_2" / f"{label.stem}.png")
    for name in wanted:
        with atomic_write(targets[name], sync=False) as file:
            np.save(file, paint_object_depth(objects, size, SETS[name]))
    return len(wanted)


if __name__ == "__main__":
    sys.exit(main())
