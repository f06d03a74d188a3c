#!/usr/bin/env python3
"""Render road scenes in KITTI's own layout: images, calibrations, labels and split lists."""

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.synthetic import make_plan, prepare_folder, write_frames
from lib.system.commands import progress_interval, run_command
from lib.system.machine import available_cores

DEFAULT_TEST_FRAMES = 4
SMALLEST, LARGEST = (64, 32), (4096, 2048)


def parse_size(text: str) -> tuple[int, int]:
    """'448x128' -> (448, 128)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1242x375, got {text!r}")
    width, height = int(parts[0]), int(parts[1])
    if not (SMALLEST[0] <= width <= LARGEST[0] and SMALLEST[1] <= height <= LARGEST[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is outside {SMALLEST[0]}x{SMALLEST[1]} .. {LARGEST[0]}x{LARGEST[1]}"
        )
    return width, height


def parse_count(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal() or int(text) > 999_999:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 999999, got {text!r}")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(
        prog="make_synthetic_kitti.py",
        description="Render road scenes with exact labels in KITTI's layout: DIR/training/{image_2,calib,label_2}, "
        "DIR/testing/{image_2,calib} and DIR/ImageSets/{train,val,trainval,test}.txt. Size, ground contact and "
        "perspective carry depth; colour does not. The camera is KITTI's (a real calibration). The same seed gives "
        "the same files, whatever --workers.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must be empty or new")
    parser.add_argument("--train", type=parse_count, required=True, metavar="N", help="frames for training")
    parser.add_argument("--val", type=parse_count, required=True, metavar="N", help="frames for validation")
    test_help = f"frames without labels, in testing/ (default: {DEFAULT_TEST_FRAMES}, with --layouts 0)"
    parser.add_argument("--test", type=parse_count, metavar="N", help=test_help)
    parser.add_argument("--seed", type=parse_count, default=0, metavar="S", help="another seed, another data set")
    parser.add_argument(
        "--layouts",
        type=Path,
        metavar="LABEL_DIR",
        help="take object types, sizes and poses from these KITTI label files (and the calib folder beside them) "
        "instead of drawing them at random. Frames keep their ids: the first ones of ../../ImageSets/{train,val}.txt "
        "as seen from LABEL_DIR if those lists exist, else the first label files by name",
    )
    size_help = "image size; the calibration scales with it (default: KITTI's, 1242x375)"
    parser.add_argument("--size", type=parse_size, metavar="WxH", help=size_help)
    parser.add_argument("--workers", type=parse_count, metavar="N", help="processes (default: one per core, at most 8)")
    parser.add_argument("--force", action="store_true", help="replace a data set that this tool wrote into DIR before")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.train + args.val == 0:
        parser.error("--train and --val are both 0: nothing to render")
    return run_command(lambda: make_data_set(args))


def make_data_set(args: argparse.Namespace) -> int:
    """Write the data set under a progress bar. Raises OSError or ValueError for what cannot be read or written."""
    started = time.perf_counter()
    test = args.test if args.test is not None else (0 if args.layouts else DEFAULT_TEST_FRAMES)
    workers = args.workers if args.workers is not None else min(8, available_cores())
    plan = make_plan(args.out, (args.train, args.val, test), args.seed, args.size, args.layouts)
    prepare_folder(plan, args.force)
    frames, objects = len(plan.frames), 0
    with tqdm(total=frames, unit="frame", desc="rendering", mininterval=progress_interval()) as bar:
        for count in write_frames(plan, min(max(workers, 1), frames)):
            objects += count
            bar.update()
    seconds = time.perf_counter() - started
    print(
        f"{args.train} train, {args.val} val and {test} test frames with {objects} labelled objects "
        f"in {plan.out.resolve()} ({seconds:.0f} s, {frames / seconds:.1f} frames/s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
