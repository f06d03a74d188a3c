"""Training samples per second of one core: this loader against one in the way of the official code.

    python tools/bench/samples.py                      # frames that are rendered for it, at KITTI's size
    python tools/bench/samples.py --dataroot data/KITTI --json samples.json

Both sides decode, augment, warp and encode the same frames at 1280 x 384, object-wise depth maps included, each in a
process of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.config import Config, Dataset, General
from lib.datasets import images
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import (
    ALL_FOLDER,
    load_object_depth,
    map_object_depth,
    paint_object_depth,
    write_object_depth,
)
from lib.datasets.samples import TrainingSamples
from lib.system.machine import keep_freed_memory
from tools.bench.plain import plain_sample, synthetic_tree
from tools.bench.report import Report, time_in_turn
from tools.bench.side import Side

CONFIG = Config(general=General(obj_depth=True), dataset=Dataset(writelist=("Car", "Pedestrian", "Cyclist")))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", type=Path, help="a KITTI tree with depth maps; default: rendered frames")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7, help="passes over the frames; the median counts")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = args.dataroot or synthetic_tree(Path(folder), args.frames)
        return measure(root, args.frames, args.repeats).show(args.json)


def measure(root: Path, count: int, repeats: int) -> Report:
    """All comparisons on the first ``count`` training frames."""
    files = KITTI(root, "train", ALL_FOLDER)
    count = min(count, len(files))
    report = Report(f"Training samples on one core, {count} frames at {CONFIG.dataset.resolution}")
    names = {
        "plain": "PIL, numpy, whole depth maps (plain)",
        "zlib": "OpenCV alone, depth maps from files",
        "files": "isal and OpenCV, depth maps from files",
        "labels": "isal and OpenCV, depth maps painted",
        "cache": "cache: ram, depth maps painted",
    }
    if not images.isal_zlib:
        print("the package isal is not installed: two rows are left out")
        del names["files"], names["labels"]
    bars = {"files" if images.isal_zlib else "zlib": 3.0, "cache": 8.0}
    sides = {name: Side(side, root, count, name) for name in names}
    seconds = {names[name]: values for name, values in time_in_turn(sides, repeats).items()}
    report.add_sides(seconds, "ms/sample", count, {names[name]: bar for name, bar in bars.items()})
    for each in sides.values():
        each.close()
    one_core()
    keep_freed_memory()
    paths = [files.image_dir / f"{i}.png" for i in files.frame_ids[:count]]
    decoding = {
        "decoding alone, OpenCV": lambda: [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths],
        "decoding alone, isal where it is installed": lambda: [images.read_image(path) for path in paths],
    }
    report.add_sides(time_in_turn(decoding, repeats), "ms/sample", count, {})
    report.add_sides(time_in_turn(_depth_sides(files, count), repeats), "ms/sample", count, {})
    return report


def one_core() -> None:
    """Otherwise OpenCV and torch use threads that the loader's workers do not have."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def side(root: Path, count: int, name: str) -> Callable[[], None]:
    """What a process of its own runs: ``count`` samples."""
    one_core()
    if name == "zlib":
        images.isal_zlib = None
    frames = KITTI(root, "train", ALL_FOLDER, paint_obj_depth=name in ("labels", "cache"), cache=name == "cache")
    if name == "plain":
        rng = np.random.default_rng(0)

        def plain() -> None:
            for k in range(count):
                plain_sample(frames, k, rng, CONFIG)

        return plain
    keep_freed_memory()  # as the loader's workers do
    samples = TrainingSamples(frames, CONFIG)

    def ours() -> None:
        for k in range(count):
            samples[(0, k)]

    return ours


def _depth_sides(frames: KITTI, count: int) -> dict[str, Callable[[], object]]:
    """Object-wise depth alone, from the file or the labels to the target."""
    from lib.datasets.augmentation import Augmentation
    from lib.ops.feature_map import resize_align_corners

    assert frames.obj_depth_dir is not None
    paths = [frames.obj_depth_dir / f"{i}.npy" for i in frames.frame_ids[:count]]
    sizes = [tuple(reversed(load_object_depth_shape(path))) for path in paths]
    resolution = CONFIG.dataset.resolution
    steps = [replace(Augmentation.identity((w, h)), flip=bool(k % 2)) for k, (w, h) in enumerate(sizes)]

    def whole() -> None:
        for path, step in zip(paths, steps, strict=True):
            depth_net = torch.from_numpy(step.depth_map(load_object_depth(path, step.image_size), resolution))
            resize_align_corners(depth_net[None, None], 96, 320)

    def lazily() -> None:
        for path, step in zip(paths, steps, strict=True):
            step.depth_map_at_cells(map_object_depth(path, step.image_size), resolution, 4)

    folder = tempfile.TemporaryDirectory()
    compressed = [Path(folder.name) / f"{path.stem}.npz" for path in paths]
    for path, target, step in zip(paths, compressed, steps, strict=True):
        write_object_depth(target, load_object_depth(path, step.image_size))

    def inflated(folder: Any = folder) -> None:  # which lasts as long as this function
        for path, step in zip(compressed, steps, strict=True):
            step.depth_map_at_cells(map_object_depth(path, step.image_size), resolution, 4)

    def painted() -> None:
        for k, step in enumerate(steps):
            texts = frames.texts[k]
            assert not isinstance(texts, Exception), "the bench's own frames are sound"
            step.depth_map_at_cells(paint_object_depth(texts[1], step.image_size), resolution, 4)

    return {
        "depth target: whole map (plain)": whole,
        "depth target: lazily": lazily,
        "depth target: from .npz": inflated,
        "depth target: painted": painted,
    }


def load_object_depth_shape(path: Path) -> tuple[int, ...]:
    """(height, width) of a depth map."""
    return tuple(np.load(path, mmap_mode="r").shape)


if __name__ == "__main__":
    sys.exit(main())
