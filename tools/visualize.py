#!/usr/bin/env python3
"""Draw KITTI result files beside the labels: each frame as one picture with 3D boxes and a bird's-eye view."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.datasets.kitti import KITTI
from lib.engine.runtime import progress_interval, run_command
from lib.files import write_file
from lib.structures import read_objects
from lib.visualization import draw_comparison


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="KITTI folder (ImageSets/, training/)")
    parser.add_argument("--results", required=True, metavar="DIR", help="folder of result files, <frame id>.txt")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the pictures go, <frame id>.png")
    parser.add_argument("--split", default="val", choices=("train", "val", "trainval", "test"), help="default: val")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="default: the first --count frames of the split")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--min-score", type=float, default=0.0, metavar="S", help="least score to draw; default: 0")
    args = parser.parse_args(argv)
    return run_command(lambda: visualize(args))


def visualize(args: argparse.Namespace) -> int:
    """Raises FileNotFoundError or ValueError for what is missing or broken."""
    dataset, results, out = KITTI(args.dataroot, args.split), Path(args.results), Path(args.out)
    if not results.is_dir():
        raise FileNotFoundError(f"{results}: no such folder of result files")
    if args.count < 1:
        raise ValueError(f"--count must be >= 1, got {args.count}")
    ids = args.ids or dataset.frame_ids[: args.count]
    unknown = [i for i in ids if i not in dataset.frame_ids]
    if unknown:
        raise ValueError(f"--ids: {', '.join(unknown)} not in split {args.split!r} of {args.dataroot}")
    for frame_id in tqdm(ids, "drawing", unit="frame", mininterval=progress_interval()):
        frame = dataset.read(dataset.frame_ids.index(frame_id))
        detections = [o for o in read_objects(results / f"{frame_id}.txt") if (o.score or 0.0) >= args.min_score]
        picture = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        panel = draw_comparison(picture, frame.calibration, frame.objects, detections)
        write_file(out / f"{frame_id}.png", cv2.imencode(".png", panel)[1].tobytes())
    print(f"{len(ids)} pictures, labels beside detections: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
