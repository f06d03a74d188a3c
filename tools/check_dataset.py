#!/usr/bin/env python3
"""Read every file of a KITTI tree that training would read, and list what is wrong with it.

Checked are the lists of frames, images (decoded), calibrations, labels, and object-wise depth maps where there are
some (painted again and compared). Exit status: 0 nothing is wrong, 1 something is, 2 the check could not be made.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.datasets.checking import TYPES, Fault, Places, check_frame, check_overlap, check_split
from lib.datasets.kitti import find_data_dir, find_label_dir
from lib.datasets.object_depth import PAINTED_TYPES
from lib.system.commands import progress_interval, run_command
from lib.system.files import atomic_write
from lib.system.machine import available_cores, leave_ctrl_c_to_parent

SPLITS = ("train", "val", "trainval", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 where something is wrong, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="KITTI folder (ImageSets/, training/)")
    parser.add_argument("--split", choices=SPLITS, help="default: all that ImageSets/ lists")
    parser.add_argument("--show", type=_count, default=10, metavar="N", help="faults to list of each kind; 0: all")
    parser.add_argument("--types", nargs="+", default=[], metavar="NAME", help="own types, besides KITTI's")
    parser.add_argument("--json", metavar="FILE", help="write all faults there")
    args = parser.parse_args(argv)
    json_file = Path(args.json) if args.json else None
    return run_command(lambda: check_dataset(Path(args.dataroot), args.split, args.show, json_file, args.types))


def check_dataset(
    root: Path, split: str | None, show: int = 10, json_file: Path | None = None, own_types: Sequence[str] = ()
) -> int:
    """Print what is wrong, and how often. Raises FileNotFoundError where there is no KITTI tree."""
    lists = root / "ImageSets"
    if not lists.is_dir():
        raise FileNotFoundError(f"{lists}: no such folder; expected KITTI's layout (ImageSets/, training/, testing/)")
    splits = [split] if split else [name for name in SPLITS if (lists / f"{name}.txt").exists()]
    if not splits:
        raise FileNotFoundError(f"{lists}: none of {', '.join(f'{name}.txt' for name in SPLITS)}")
    started = time.perf_counter()
    faults: list[Fault] = []
    frames: dict[str, dict[str, int]] = {}
    for name in splits:
        found, frames[name] = check_split(lists / f"{name}.txt")
        faults += found
    if "train" in frames and "val" in frames:
        faults += check_overlap(lists / "train.txt", lists / "val.txt", frames["train"], frames["val"])
    jobs: list[tuple[Places, str]] = []
    for half in ("training", "testing"):
        ids = sorted({i for name in splits if (name == "test") == (half == "testing") for i in frames[name]})
        there = any((place / half).is_dir() for place in (root, root / "object"))
        if half == "testing" and ids and split is None and not there:
            print(f"{root / half} is not there; the test split is left out")
            continue
        if ids:
            jobs += [(find_places(root, half), frame_id) for frame_id in ids]
    faults += sorted(check_frames(jobs, (*TYPES, *own_types)))
    report(faults, len(jobs), time.perf_counter() - started, show)
    if json_file:
        content = [{**vars(fault), "path": str(fault.path)} for fault in faults]
        with atomic_write(json_file) as file:
            file.write(json.dumps(content, indent=1).encode())
        print(f"all faults: {json_file}")
    return 1 if faults else 0


def find_places(root: Path, half: str) -> Places:
    """The folders of 'training' or 'testing'. Raises FileNotFoundError where there are no images at all."""
    folder = find_data_dir(root, half)
    if half == "testing":
        return Places(folder / "image_2", folder / "calib", None)
    maps = tuple(folder / name for name in PAINTED_TYPES if (folder / name).is_dir())
    return Places(folder / "image_2", folder / "calib", find_label_dir(folder), maps)


def check_frames(jobs: Sequence[tuple[Places, str]], types: Sequence[str] = TYPES) -> list[Fault]:
    """In parallel, with a progress bar."""
    faults: list[Fault] = []
    interval = progress_interval()
    with multiprocessing.Pool(min(available_cores(), 16), _begin_worker) as pool:
        work = pool.imap_unordered(partial(_check_job, types), jobs, chunksize=8)
        for found in tqdm(work, "checking", len(jobs), unit="frame", mininterval=interval, leave=False):
            faults += found
    return faults


def _begin_worker() -> None:
    leave_ctrl_c_to_parent()
    cv2.setNumThreads(0)  # the processes already share the cores among them


def _check_job(types: Sequence[str], job: tuple[Places, str]) -> list[Fault]:
    return check_frame(*job, types)


def report(faults: Sequence[Fault], frames: int, seconds: float, show: int) -> None:
    """Each kind with its count, and its first faults."""
    counts = Counter(fault.kind for fault in faults)
    for kind, count in counts.most_common():
        print(f"{kind}: {count}")
        own = [fault for fault in faults if fault.kind == kind]
        for fault in own[: show or None]:
            print(f"  {fault}")
        if show and count > show:
            print(f"  .. and {count - show} more; --show 0 lists them all")
    verdict = "nothing is wrong"
    if faults:
        verdict = f"{len(faults)} fault{'s'[: len(faults) > 1]} of {len(counts)} kind{'s'[: len(counts) > 1]}"
    print(f"{frames} frames checked in {seconds:.1f} s: {verdict}")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
