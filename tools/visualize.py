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

from lib.config import load_config
from lib.datasets import KITTI
from lib.evaluation.reading import list_ids
from lib.ops.text import counted
from lib.pipeline.images import read_detections, write_frames
from lib.system.commands import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="KITTI folder (ImageSets/, training/)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="result files, <frame id>.txt; default: none")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images, <frame id>.png")
    split = "a list in ImageSets; 'test': the images of testing/. Default: the frames of --results, else val"
    parser.add_argument("--split", metavar="NAME", help=split)
    parser.add_argument("--ids", nargs="+", metavar="ID", help="draw these frames, which need not be in a list")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="draw the first N frames; default: 8")
    parser.add_argument("--min-score", type=float, default=0.0, metavar="S", help="lowest score drawn; default: 0")
    parser.add_argument("--maps", action="store_true", help="also draw object-wise depth maps, from the labels")
    parser.add_argument("--checkpoint", type=Path, metavar="X.pth", help="also draw the heatmaps of this network")
    parser.add_argument("--config", type=Path, metavar="X.yaml", help="for a checkpoint that has none (official ones)")
    args = parser.parse_args(argv)
    return run_command(lambda: visualize(args))


def visualize(args: argparse.Namespace) -> None:
    """Check the arguments and draw the frames. Raises FileNotFoundError or ValueError."""
    if args.count < 1:
        raise ValueError(f"--count must be >= 1, got {args.count}")
    ids, split = args.ids, args.split or "val"
    evaluated = args.results.parent / "config.yaml" if args.results else Path()
    if not args.split and evaluated.is_file():  # results/<checkpoint>/<split>/data of a run
        split = load_config(evaluated).tester.split
    if args.results is not None and not ids and not args.split:
        ids = list_ids(args.results)[: args.count]
        if not ids:
            hint = f"; {args.results / 'data'} has some" if (args.results / "data").is_dir() else ""
            raise ValueError(f"{args.results}: no result file, <frame id>.txt, in this folder{hint}")
    dataset = KITTI(args.dataroot, split, max_frames=0 if args.ids else args.count, frame_ids=ids)
    ids = dataset.frame_ids
    if args.maps and not dataset.has_labels:
        raise ValueError(f"--maps: split {split!r} has no labels to paint depth maps from")
    if args.results is None and not dataset.has_labels:
        raise ValueError(f"--results: needed, since split {split!r} has no labels to draw")
    draw_heatmaps = None
    if args.checkpoint:
        from lib.prediction import load_detector  # imported here because only heatmaps need torch

        draw_heatmaps = load_detector(args.checkpoint, args.config).draw_heatmap
    detections = dict.fromkeys(ids) if args.results is None else read_detections(args.results, ids, args.min_score)
    write_frames(dataset, detections, args.out, args.maps, draw_heatmaps)
    drawn = ["labels"] * dataset.has_labels + ["detections"] * bool(args.results)
    print(f"{counted(len(ids), 'image')}, {' beside '.join(drawn)}: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
