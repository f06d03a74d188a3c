#!/usr/bin/env python3
"""Write a checkpoint as one ONNX file that goes from images to 3D boxes, and compare it with PyTorch.

    python tools/export_onnx.py --checkpoint outputs/x/checkpoints/checkpoint_last.pth --out x.onnx
    python tools/run_onnx.py --model x.onnx --input image_2 --calib calib --out results
    python tools/export_onnx.py --checkpoint outputs/x/checkpoints/checkpoint_last.pth --release x.pth

ONNX needs the packages onnx, onnxscript and onnxruntime. Inputs and outputs of the file: docs/export.md. --release
writes a checkpoint without the optimizer's state instead.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.export import OLDEST_OPSET, export_checkpoint, release_checkpoint
from lib.system.commands import run_command, setup_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 for a file that does not compute what PyTorch does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="X.pth")
    written = parser.add_mutually_exclusive_group(required=True)
    written.add_argument("--out", type=Path, metavar="M.onnx")
    smaller = "write a checkpoint for prediction, evaluation and fine-tuning, without the optimizer's state, instead"
    written.add_argument("--release", type=Path, metavar="R.pth", help=smaller)
    parser.add_argument("--config", metavar="X.yaml", help="for checkpoints without a configuration (official ones)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override keys of it"
    )
    parser.add_argument(
        "--opset", type=int, default=OLDEST_OPSET, metavar="N", help=f"ONNX operator set; default: {OLDEST_OPSET}"
    )
    parser.add_argument(
        *("--images", "--pictures"), nargs="+", type=Path, default=[], metavar="FILE", help="for the comparison"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file where it exists")
    args = parser.parse_args(argv)
    if args.release and (args.images or args.opset != OLDEST_OPSET):
        parser.error("--opset and --images go with --out")
    options = (args.config, args.set, args.opset, args.images, args.overwrite)
    setup_logging()
    if args.release:
        return run_command(lambda: release_checkpoint(args.checkpoint, args.release, *options[:2], args.overwrite))
    return run_command(lambda: export_checkpoint(args.checkpoint, args.out, *options))


if __name__ == "__main__":
    sys.exit(main())
