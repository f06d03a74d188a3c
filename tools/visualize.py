#!/usr/bin/env python3
"""Draw KITTI labels and result files: one image per frame, with 3D boxes and a bird's-eye view.

    python tools/visualize.py --dataroot D --results R --out O
    python tools/visualize.py --dataroot D --out O --maps --checkpoint x.pth

Without --results only the labels are drawn. --maps also writes each frame's object-wise depth map as
<frame id>_depth.png, and --checkpoint the heatmap of a network as <frame id>_heatmap.png.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.datasets import KITTI
from lib.pipeline.images import read_detections, write_frames
from lib.system.commands import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="KITTI folder (ImageSets/, training/)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="result files, <frame id>.txt; default: none")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images, <frame id>.png")
    parser.add_argument("--split", default="val", metavar="NAME", help="a list in ImageSets; default: val")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="default: the first --count frames of the split")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--min-score", type=float, default=0.0, metavar="S", help="lowest score drawn; default: 0")
    parser.add_argument("--maps", action="store_true", help="also draw object-wise depth maps, from the labels")
    parser.add_argument("--checkpoint", type=Path, metavar="X.pth", help="also draw the heatmaps of this network")
    parser.add_argument("--config", type=Path, metavar="X.yaml", help="for a checkpoint that has none (official ones)")
    args = parser.parse_args(argv)
    return run_command(lambda: visualize(args))


def visualize(args: argparse.Namespace) -> None:
    """Check the arguments and draw the frames. Raises FileNotFoundError or ValueError."""
    dataset = KITTI(args.dataroot, args.split)
    if args.results is not None and not args.results.is_dir():
        raise FileNotFoundError(f"{args.results}: no such folder of result files")
    if args.maps and not dataset.has_labels:
        raise ValueError(f"--maps: split {args.split!r} has no labels to paint depth maps from")
    if args.count < 1:
        raise ValueError(f"--count must be >= 1, got {args.count}")
    ids = args.ids or dataset.frame_ids[: args.count]
    unknown = [i for i in ids if i not in dataset.frame_ids]
    if unknown:
        raise ValueError(f"--ids: {', '.join(unknown)} not in split {args.split!r} of {args.dataroot} (--split)")
    if args.results is None and not dataset.has_labels:
        raise ValueError(f"--results: needed, since split {args.split!r} has no labels to draw")
    draw_heatmaps = None
    if args.checkpoint:
        from lib.prediction import load_detector  # imported here because only heatmaps need torch

        draw_heatmaps = load_detector(args.checkpoint, args.config).draw_heatmap
    detections = dict.fromkeys(ids) if args.results is None else read_detections(args.results, ids, args.min_score)
    write_frames(dataset, detections, args.out, args.maps, draw_heatmaps)
    print(f"{len(ids)} images, {'labels beside detections' if args.results else 'labels'}: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
