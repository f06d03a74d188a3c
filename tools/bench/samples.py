"""Time of training samples on one core, and of their parts.

    python tools/bench/samples.py                      # rendered frames of KITTI's size
    python tools/bench/samples.py --dataroot data/KITTI --json samples.json

Decodes, augments, warps and encodes the same frames at 1280 x 384, with object-wise depth maps from files, painted, and
with the cache. Further rows compare parts: decoders, warps, sources of depth maps. Ratios are to the first row of each.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import make_obj_depth
from lib.config import Config, Dataset, General
from lib.datasets import images
from lib.datasets.augmentation import Augmentation
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import ALL_FOLDER, paint_object_depth, read_object_depth, write_object_depth
from lib.datasets.samples import TrainingSamples
from lib.ops.affine import STRIDE
from lib.system.machine import keep_freed_memory
from tools import make_synthetic_kitti
from tools.bench.timing import Report

CONFIG = Config(general=General(obj_depth=True), dataset=Dataset(writelist=("Car", "Pedestrian", "Cyclist")))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", type=Path, help="a KITTI tree with depth maps; default: rendered frames")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7, help="passes over the frames; the median counts")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = args.dataroot or make_synthetic_tree(Path(folder), args.frames)
        use_one_core()
        frames = KITTI(root, "train", ALL_FOLDER, max_frames=args.frames)
        report = Report(f"Training samples on one core, {len(frames)} frames at {CONFIG.dataset.resolution}")
        parts = _decoders(frames), _warps(frames), _depth_maps(frames, Path(folder))
        for sides in (_samples(root, len(frames)), *parts):
            report.time_sides(sides, args.repeats, "ms/sample", len(frames))
    report.show(args.json)
    return 0


def make_synthetic_tree(root: Path, frames: int) -> Path:
    """Render frames of KITTI's size with object-wise depth maps, below ``root``; returns the data root."""
    folder = root / "KITTI"
    arguments = ["--out", str(folder), "--train", str(frames), "--val", "1", "--test", "0"]
    if make_synthetic_kitti.main(arguments) or make_obj_depth.main(["--dataroot", str(folder)]):
        raise RuntimeError("the frames for the benchmark could not be rendered")
    return folder


def use_one_core() -> None:
    """Like a loader worker: no threads in OpenCV and torch, and freed memory is kept."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    keep_freed_memory()


def _samples(root: Path, count: int) -> dict[str, Callable[[], object]]:
    def side(painted: bool, cache: bool) -> Callable[[], object]:
        frames = KITTI(root, "train", ALL_FOLDER, paint_obj_depth=painted, cache=cache, max_frames=count)
        samples = TrainingSamples(frames, CONFIG)
        return lambda: [samples[(0, k)] and None for k in range(count)]

    return {
        "depth maps from files": side(painted=False, cache=False),
        "depth maps painted": side(painted=True, cache=False),
        "cache: ram, depth maps painted": side(painted=True, cache=True),
    }


def _decoders(frames: KITTI) -> dict[str, Callable[[], object]]:
    paths = [frames.image_dir / f"{frame_id}.png" for frame_id in frames.frame_ids]
    return {
        "decode: OpenCV": lambda: [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths],
        "decode: imagecodecs, if it is installed": lambda: [images.read_image(path) for path in paths],
    }


def _warps(frames: KITTI) -> dict[str, Callable[[], object]]:
    resolution, decoded = CONFIG.dataset.resolution, [frames.read(k).image for k in range(len(frames))]
    pairs = [(Augmentation.identity(size), image) for size, image in zip(frames.image_sizes, decoded, strict=True)]
    pil = Image.Transform.AFFINE, (0.97, 0, 0, 0, 0.97, -5), Image.Resampling.BILINEAR
    return {
        "warp: PIL": lambda: [Image.fromarray(image).transform(resolution, *pil) for image in decoded],
        "warp: OpenCV": lambda: [step.image(image, resolution) for step, image in pairs],
    }


def _depth_maps(frames: KITTI, scratch: Path) -> dict[str, Callable[[], object]]:
    """Depth target of each frame, from a file or from its labels; ``scratch``: a folder for compressed maps."""
    assert frames.obj_depth_dir is not None
    names, sizes, folder = frames.frame_ids, frames.image_sizes, frames.obj_depth_dir
    labels = [annotation[1] for annotation in frames.annotations if not isinstance(annotation, Exception)]
    for name, size in zip(names, sizes, strict=True):
        write_object_depth(scratch / f"{name}.npz", read_object_depth(folder / f"{name}.npy", size))

    def side(source: Callable[[int], np.ndarray]) -> Callable[[], object]:
        steps, resolution = [Augmentation.identity(size) for size in sizes], CONFIG.dataset.resolution
        return lambda: [step.depth_map(source(k), resolution, STRIDE) for k, step in enumerate(steps)]

    return {
        "depth target: .npy": side(lambda k: read_object_depth(folder / f"{names[k]}.npy", sizes[k])),
        "depth target: .npz": side(lambda k: read_object_depth(scratch / f"{names[k]}.npz", sizes[k])),
        "depth target: painted": side(lambda k: paint_object_depth(labels[k], sizes[k])),
    }


if __name__ == "__main__":
    sys.exit(main())
