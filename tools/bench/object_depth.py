"""make_obj_depth.py on labels of KITTI's kind: time for both sets of maps, and bytes on the disk.

    python tools/bench/object_depth.py                                   # 300 frames with generated labels
    python tools/bench/object_depth.py --labels data/KITTI/training/label_2 --frames 7481 --only npz --repeats 1

Plain is one process that paints one frame after the other and stores whole maps. Every side starts without maps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import make_obj_depth
from lib.datasets.object_depth import PAINTED_TYPES, paint_object_depth
from lib.structures import read_objects
from tools.bench.report import Report, time_in_turn

SIZE = (1242, 375)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; there is no bar that a ratio could miss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, metavar="DIR", help="label files; default: generated ones")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5, help="the median counts")
    parser.add_argument("--only", choices=("npy", "npz"))
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        training = Path(folder) / "training"
        count = make_tree(training, args.labels, args.frames)
        return measure(training, count, args.repeats, args.only).show(args.json)


def measure(training: Path, count: int, repeats: int, only: str | None) -> Report:
    """All sides on a tree of ``count`` frames."""

    def clear() -> None:
        for name in PAINTED_TYPES:
            shutil.rmtree(training / name, ignore_errors=True)

    def plain() -> None:
        clear()
        for name, types in PAINTED_TYPES.items():
            (training / name).mkdir()
            for label in sorted((training / "label_2").iterdir()):
                np.save(training / name / f"{label.stem}.npy", paint_object_depth(read_objects(label), SIZE, types))

    def command(kind: str) -> Callable[[], None]:
        def run() -> None:
            clear()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                status = make_obj_depth.main(["--dataroot", str(training.parent), "--format", kind])
            if status:
                raise RuntimeError("make_obj_depth.py failed")

        return run

    sides: dict[str, Callable[[], None]] = {} if only else {"one process, whole maps (plain)": plain}
    sides |= {f"make_obj_depth.py --format {kind}": command(kind) for kind in ("npy", "npz") if only in (None, kind)}
    report = Report(f"Object-wise depth maps, both sets, {count} frames, {os.cpu_count()} cores")
    seconds = time_in_turn(sides, repeats)
    report.add_sides(seconds, "ms/frame", count, {})
    for name, run in sides.items():
        run()
        sizes = [path.stat().st_size for folder in PAINTED_TYPES for path in (training / folder).iterdir()]
        report.add(f"{name}: a map", sum(sizes) / len(sizes) / 1000, "KB")
        report.add(f"{name}: the largest map", max(sizes) / 1000, "KB")
    return report


def make_tree(training: Path, labels: Path | None, count: int) -> int:
    """Images of KITTI's size (one file, under many names) and labels. Returns the number of frames."""
    (training / "image_2").mkdir(parents=True)
    (training / "label_2").mkdir()
    image = training.parent / "black.png"
    cv2.imwrite(str(image), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    texts = generated_labels(count) if labels is None else [p.read_text() for p in sorted(labels.glob("*.txt"))[:count]]
    for k, text in enumerate(texts):
        (training / "label_2" / f"{k:06d}.txt").write_text(text)
        (training / "image_2" / f"{k:06d}.png").hardlink_to(image)
    return len(texts)


def generated_labels(count: int) -> list[str]:
    """Texts of label files with 0 to 12 cars and pedestrians."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        lines = []
        for _ in range(rng.integers(0, 13)):
            z, kind = rng.uniform(4, 70), ("Car", "Pedestrian")[int(rng.integers(2))]
            x, half = rng.uniform(0, SIZE[0]), 700 / z
            box = (max(x - half, 0), 180 - half / 2, min(x + half, SIZE[0] - 1), min(180 + half, SIZE[1] - 1))
            lines.append(f"{kind} 0 0 0 {' '.join(f'{v:.2f}' for v in box)} 1.5 1.6 3.9 0 1.6 {z:.2f} 0\n")
        texts.append("".join(lines))
    return texts


if __name__ == "__main__":
    sys.exit(main())
