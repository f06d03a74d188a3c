#!/usr/bin/env python3
"""Render road scenes in KITTI's own layout: images, calibrations, labels and split lists."""

import argparse
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.ops.text import counted
from lib.synthetic.dataset import make_plan, prepare_folder, write_frames
from lib.system.commands import run_command, show_progress
from lib.system.machine import available_cores

DEFAULT_TEST_FRAMES = 4
SMALLEST, LARGEST = (64, 32), (4096, 2048)


def parse_size(text: str) -> tuple[int, int]:
    """'448x128' -> (448, 128)."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.lower())
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(low <= side <= high for low, side, high in zip(SMALLEST, size, LARGEST, strict=True)):
        limits = " to ".join(f"{width}x{height}" for width, height in (SMALLEST, LARGEST))
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT from {limits}, such as 1242x375, got {text!r}")
    return size


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Render road scenes with exact labels in KITTI's layout: DIR/training/{image_2,calib,label_2}, "
        "DIR/testing/{image_2,calib} and DIR/ImageSets/{train,val,trainval,test}.txt. Size, ground contact and "
        "perspective carry depth; colour does not. The camera is KITTI's (a real calibration). The same seed gives "
        "the same files, whatever --workers.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must be empty or new")
    parser.add_argument("--train", type=int, required=True, metavar="N", help="frames for training")
    parser.add_argument("--val", type=int, required=True, metavar="N", help="frames for validation")
    test_help = f"frames without labels, in testing/ (default: {DEFAULT_TEST_FRAMES}, with --layouts 0)"
    parser.add_argument("--test", type=int, metavar="N", help=test_help)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, another data set")
    layouts = (
        "take object types, sizes and poses from these KITTI label files (and the calib folder beside them) instead of "
        "drawing them at random. Frames keep their ids: the first ones of ../../ImageSets/{train,val}.txt as seen from "
        "LABEL_DIR if those lists exist, else the first label files by name"
    )
    parser.add_argument("--layouts", type=Path, metavar="LABEL_DIR", help=layouts)
    size_help = "image size; the calibration scales with it (default: KITTI's, 1242x375)"
    parser.add_argument("--size", type=parse_size, metavar="WxH", help=size_help)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core, at most 8)")
    parser.add_argument("--force", action="store_true", help="replace a data set that this tool wrote into DIR before")
    args = parser.parse_args(argv)
    return run_command(lambda: make_data_set(args))


def make_data_set(args: argparse.Namespace) -> None:
    """Write the data set under a progress bar. Raises OSError or ValueError for what cannot be read or written."""
    started = time.perf_counter()
    test = args.test if args.test is not None else (0 if args.layouts else DEFAULT_TEST_FRAMES)
    workers = args.workers if args.workers is not None else min(8, available_cores())
    plan = make_plan(args.out, (args.train, args.val, test), args.seed, args.size, args.layouts)
    prepare_folder(plan, args.force)
    frames = len(plan.frames)
    objects = sum(show_progress(write_frames(plan, min(workers, frames)), "rendering", frames))
    seconds = time.perf_counter() - started
    print(
        f"{args.train} train, {args.val} val and {counted(test, 'test frame')} with "
        f"{counted(objects, 'labelled object')} in {plan.out.resolve()} "
        f"({seconds:.0f} s, {frames / seconds:.1f} frames/s)"
    )


if __name__ == "__main__":
    sys.exit(main())
