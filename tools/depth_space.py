#!/usr/bin/env python3
"""How far a trained network's object descriptors are arranged by depth: pairs against the bounds of DDML's loss, how
often that loss is not 0, rank correlation, and depth read from descriptors. One checkpoint, or two side by side.

    python tools/depth_space.py --config x.yaml --checkpoint outputs/x/checkpoints/checkpoint_epoch_140.pth --out DIR

writes DIR/depth_space.json and DIR/depth_space.png and prints a table. docs/depth_space.md explains the figures.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.analysis.depth_report import depth_space_table
from lib.analysis.descriptors import load_subject, measure_subject
from lib.config import load_config
from lib.system.commands import run_command, setup_logging
from lib.system.files import write_file, write_json
from lib.visualization.depth_space import depth_spaces_png

FIGURES, IMAGE = "depth_space.json", "depth_space.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="X.yaml", help="the experiment; its K, B and rad are used")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="C.pth")
    parser.add_argument("--checkpoint2", type=Path, metavar="D.pth", help="a second one, to compare with")
    parser.add_argument("--config2", metavar="Y.yaml", help="its experiment; default: that of the first")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the checkpoints; default: run/file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for depth_space.json and .png")
    parser.add_argument("--split", default="val", help="frames to measure on: ImageSets/<split>.txt; default: val")
    parser.add_argument("--fit-split", default="train", help="frames to fit read-outs on; default: train")
    parser.add_argument("--max-frames", type=int, metavar="N", help="at most N frames of each split, evenly spaced")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier call")
    keys = "override keys of both YAMLs"
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help=keys)
    args = parser.parse_args(argv)
    return run_command(lambda: depth_space(args))


def depth_space(args: argparse.Namespace) -> None:
    """Raises FileNotFoundError or ValueError for what is missing or does not fit."""
    setup_logging()
    if args.config2 and not args.checkpoint2:
        raise ValueError("--config2 goes with --checkpoint2, which is not given")
    if args.max_frames is not None and args.max_frames < 1:
        raise ValueError(f"--max-frames must be >= 1, got {args.max_frames}")
    for option, split in (("--split", args.split), ("--fit-split", args.fit_split)):
        if split == "test":
            raise ValueError(f"{option}: the split 'test' has no labels; choose train, val, or another with labels")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out must be a folder; {args.out} is a file")
    existing = [path for path in (args.out / FIGURES, args.out / IMAGE) if path.exists()]
    if existing and not args.overwrite:
        raise ValueError(f"{existing[0]} exists already; --overwrite replaces it")
    paths = [args.checkpoint] + ([args.checkpoint2] if args.checkpoint2 else [])
    names = args.names or [default_name(path) for path in paths]
    if len(names) != len(paths):
        raise ValueError(f"--names: expected {len(paths)}, one for each checkpoint, got {len(names)}")
    configs = [load_config(path, args.set) for path in (args.config, args.config2 or args.config)]
    # all are loaded before the first is measured, so that an error in the second comes at once
    parts = list(zip(names, paths, configs, strict=False))
    subjects = [load_subject(*part, args.split, args.fit_split) for part in parts]
    spaces = [measure_subject(subject, args.max_frames) for subject in subjects]
    models = [{"checkpoint": str(path), **space.figures} for path, space in zip(paths, spaces, strict=True)]
    image = depth_spaces_png(spaces)
    write_json(args.out / FIGURES, {"split": args.split, "fit_split": args.fit_split, "models": models})
    write_file(args.out / IMAGE, image)
    print(f"descriptors of the objects of split {args.split}; depth read-outs fitted on split {args.fit_split}\n")
    print(depth_space_table(spaces))
    print(f"\nfigures: {args.out / FIGURES}\nimage: {args.out / IMAGE}")


def default_name(checkpoint: Path) -> str:
    """outputs/x/checkpoints/checkpoint_epoch_140.pth -> 'x/checkpoint_epoch_140'."""
    folder = checkpoint.resolve().parent
    return f"{(folder.parent if folder.name == 'checkpoints' else folder).name}/{checkpoint.stem}"


if __name__ == "__main__":
    sys.exit(main())
