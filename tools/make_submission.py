#!/usr/bin/env python3
"""Check result files and pack them into the zip that KITTI's server takes.

    python tools/train_val.py --config x.yaml --set dataset.train_split=trainval tester.split=test
    python tools/make_submission.py --results outputs/x/results/checkpoint_epoch_140/test/data --out submission.zip

The server (object detection benchmark, cvlibs.net) expects 000000.txt .. 007517.txt at the top of the zip, one for each
of the 7518 test images, empty where nothing was found, with 16 columns a line.
"""

import argparse
import math
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.evaluation import CLASSES
from lib.evaluation.reading import read_lines
from lib.ops.angles import wrap_angle
from lib.structures import UNKNOWN_ALPHA, Object3d, scan_objects
from lib.system.commands import run_command, show_progress
from lib.system.files import atomic_write

TEST_FRAMES = 7518
LARGEST_ANGLE = 4 * math.pi  # [rad] larger ones are in degrees
_TIME = (1980, 1, 1, 0, 0, 0)  # of every entry, the earliest that a zip can store: equal results make equal files


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for results that the server would refuse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, type=Path, metavar="DIR", help="folder of <frame id>.txt")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.zip")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier FILE.zip")
    args = parser.parse_args(argv)
    return run_command(lambda: make_submission(args.results, args.out, args.overwrite))


def make_submission(results: Path, out: Path, overwrite: bool = False) -> None:
    """Check and pack. Raises FileNotFoundError or ValueError, with file and line, for what the server would refuse."""
    if out.suffix.lower() != ".zip":
        raise ValueError(f"--out must end in .zip, got {out.name!r}")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists already; --overwrite replaces it")
    names = check_names(results)
    checked = [check_results(results / name) for name in show_progress(names, "checking", unit="file", leave=False)]
    types = Counter(obj.type for objects, _ in checked for obj in objects)
    warnings = [warning for _, found in checked for warning in found]
    turned = sum(_has_turns(obj.alpha, obj.rotation_y) for objects, _ in checked for obj in objects)
    with atomic_write(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (objects, _) in zip(names, checked, strict=True):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, _pack(results / name, objects))
    counts = ", ".join(f"{types[name]} {name}" for name in CLASSES)
    print(f"{len(names)} files, {counts}, {sum(not objects for objects, _ in checked)} of them without detections")
    print(f"{out.stat().st_size / 1e6:.2f} MB: {out}")
    if turned:
        print(f"detections with angles outside -pi .. pi, of which full turns were removed: {turned}")
    if warnings:
        print(f"{len(warnings)} warnings about detections that the server accepts; the first: {warnings[0]}")
    if not types:
        print("None of the files has a detection: is this the right folder?")


def check_names(results: Path) -> list[str]:
    """The 7518 names, in order. Raises where one is missing or there is anything else."""
    if not results.is_dir():
        raise FileNotFoundError(f"{results}: no such folder of result files")
    expected = [f"{number:06d}.txt" for number in range(TEST_FRAMES)]
    present = {path.name for path in results.iterdir()}
    missing, others = sorted(set(expected) - present), sorted(present - set(expected))
    if missing and not present & set(expected) and (results / "data").is_dir():
        raise FileNotFoundError(f"{results}: no result files; did you mean {results / 'data'}?")
    if missing:
        raise FileNotFoundError(
            f"{results}: {len(missing)} of the {TEST_FRAMES} files are missing, the first is {missing[0]}; "
            "predict the whole test split (tester.split=test)"
        )
    if others:
        raise ValueError(f"{results}: {len(others)} entries do not belong into a submission, the first is {others[0]}")
    return expected


def check_results(path: Path) -> tuple[list[Object3d], list[str]]:
    """Detections of a file, and warnings about implausible ones. Raises ValueError for what the devkit cannot read."""
    objects, warnings = [], []
    for number, obj in scan_objects(path, scored=True):
        place = f"{path}, line {number}"
        if isinstance(obj, ValueError):
            raise ValueError(f"{place}: {obj}")
        if obj.type not in CLASSES:
            raise ValueError(f"{place}: type must be one of {', '.join(CLASSES)}, got {obj.type!r}")
        objects.append(obj)
        x1, y1, x2, y2 = obj.bbox_img
        if x2 <= x1 or y2 <= y1:
            warnings.append(f"{place}: a 2D box without area, {obj.bbox_img}")
        if min(obj.dimensions) <= 0:
            warnings.append(f"{place}: a size that is not positive, {obj.dimensions}")
        if max(abs(obj.alpha), abs(obj.rotation_y)) > LARGEST_ANGLE:
            angles = f"alpha {obj.alpha:g}, rotation_y {obj.rotation_y:g}"
            raise ValueError(f"{place}: angles must be in radians, got {angles}: are they in degrees?")
    return objects, warnings


def _has_turns(*angles: float) -> bool:
    """Whether an angle [rad] is outside -pi .. pi, with the slack of two decimals; unknown ones are not."""
    return any(abs(angle) > math.pi + 0.01 and angle != UNKNOWN_ALPHA for angle in angles)


def _pack(path: Path, objects: Sequence[Object3d]) -> bytes:
    """The file's lines, with those angles wrapped that are outside -pi .. pi."""
    lines = [line for line in read_lines(path) if line.strip()]
    for k, obj in enumerate(objects):
        for column, angle in ((3, obj.alpha), (14, obj.rotation_y)):
            if _has_turns(angle):
                columns = lines[k].split()
                columns[column] = f"{wrap_angle(angle):.6f}".encode()
                lines[k] = b" ".join(columns)
    return b"".join(line + b"\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
