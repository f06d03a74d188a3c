"""Time of training samples on one core: this loader against one in the way of the official code.

    python tools/bench/samples.py                      # rendered frames of KITTI's size
    python tools/bench/samples.py --dataroot data/KITTI --json samples.json

Both sides decode, augment, warp and encode the same frames at 1280 x 384, with object-wise depth maps, each in a
process of its own. Further rows compare parts: decoders, warps of three and four channels, sources of depth maps.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.config import Config, Dataset, General
from lib.datasets import images
from lib.datasets.augmentation import Augmentation
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import ALL_FOLDER, paint_object_depth, read_object_depth, write_object_depth
from lib.datasets.samples import TrainingSamples
from lib.ops.feature_map import STRIDE
from lib.system.machine import keep_freed_memory
from tools.bench.plain import frame_annotations, make_synthetic_tree, plain_sample
from tools.bench.timing import Report, Side, time_in_turn

CONFIG = Config(general=General(obj_depth=True), dataset=Dataset(writelist=("Car", "Pedestrian", "Cyclist")))
SIDES = {
    "plain": "PIL, numpy, whole depth maps (plain)",
    "opencv": "without imagecodecs, depth maps from files",
    "files": "depth maps from files",
    "labels": "depth maps painted",
    "cache": "cache: ram, depth maps painted",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", type=Path, help="a KITTI tree with depth maps; default: rendered frames")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7, help="passes over the frames; the median counts")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = args.dataroot or make_synthetic_tree(Path(folder), args.frames)
        return measure(root, args.frames, args.repeats, Path(folder)).show(args.json)


def measure(root: Path, count: int, repeats: int, scratch: Path) -> Report:
    """All comparisons on the first ``count`` training frames; ``scratch``: an empty folder for depth maps."""
    frames = KITTI(root, "train", ALL_FOLDER, max_frames=count)
    count = len(frames)
    report = Report(f"Training samples on one core, {count} frames at {CONFIG.dataset.resolution}")
    sides = {title: Side(make_side, root, count, name) for name, title in SIDES.items()}
    bars = {SIDES["files"]: 2.0, SIDES["cache"]: 8.0}
    report.add_sides(time_in_turn(sides, repeats), "ms/sample", count, bars)
    for side in sides.values():
        side.close()
    use_one_core()
    for parts in (_decoders(frames), _warps(frames), _depth_maps(frames, scratch)):
        report.add_sides(time_in_turn(parts, repeats), "ms/sample", count, {})
    return report


def use_one_core() -> None:
    """Like a loader worker: no threads in OpenCV and torch, and freed memory is kept."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    keep_freed_memory()


def make_side(root: Path, count: int, name: str) -> Callable[[], None]:
    """A function that makes ``count`` samples; runs in a process of its own."""
    use_one_core()
    if name == "opencv":
        images.imagecodecs = None
    painted = name in ("labels", "cache")
    frames = KITTI(root, "train", ALL_FOLDER, paint_obj_depth=painted, cache=name == "cache", max_frames=count)
    rng, samples = np.random.default_rng(0), TrainingSamples(frames, CONFIG)

    def run() -> None:
        for k in range(count):
            if name == "plain":
                plain_sample(frames, k, rng, CONFIG)
            else:
                samples[(0, k)]

    return run


def _decoders(frames: KITTI) -> dict[str, Callable[[], object]]:
    paths = [frames.image_dir / f"{frame_id}.png" for frame_id in frames.frame_ids]
    return {
        "decode: OpenCV": lambda: [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths],
        "decode: imagecodecs, if it is installed": lambda: [images.read_image(path) for path in paths],
    }


def _warps(frames: KITTI) -> dict[str, Callable[[], object]]:
    decoded = [frames.read(k).image for k in range(len(frames))]
    steps = [Augmentation.identity(size) for size in frames.image_sizes]
    resolution, inverse = CONFIG.dataset.resolution, np.array([[0.97, 0, 0], [0, 0.97, -5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return {
        "warp: three channels": lambda: [cv2.warpAffine(image, inverse, resolution, flags=flags) for image in decoded],
        "warp: four channels": lambda: [
            step.image(image, resolution) for step, image in zip(steps, decoded, strict=True)
        ],
    }


def _depth_maps(frames: KITTI, scratch: Path) -> dict[str, Callable[[], object]]:
    """Depth target of each frame, from a file or from its labels."""
    assert frames.obj_depth_dir is not None
    sizes = dict(zip(frames.frame_ids, frames.image_sizes, strict=True))
    npy = {frame_id: frames.obj_depth_dir / f"{frame_id}.npy" for frame_id in sizes}
    npz = {frame_id: scratch / f"{frame_id}.npz" for frame_id in sizes}
    for frame_id, size in sizes.items():
        write_object_depth(npz[frame_id], read_object_depth(npy[frame_id], size))

    def run(source: Callable[[int, str, tuple[int, int]], np.ndarray]) -> None:
        for k, (frame_id, size) in enumerate(sizes.items()):
            augmentation = replace(Augmentation.identity(size), flip=bool(k % 2))
            augmentation.depth_map(source(k, frame_id, size), CONFIG.dataset.resolution, STRIDE)

    return {
        "depth target: .npy": lambda: run(lambda k, frame_id, size: read_object_depth(npy[frame_id], size)),
        "depth target: .npz": lambda: run(lambda k, frame_id, size: read_object_depth(npz[frame_id], size)),
        "depth target: painted": lambda: run(
            lambda k, frame_id, size: paint_object_depth(frame_annotations(frames, k)[1], size)
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
