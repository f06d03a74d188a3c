#!/usr/bin/env python3
"""Detections on your own images, without labels: images, folders, a video, or a camera.

    python tools/predict.py --checkpoint x.pth --input photos --fx 1400 --out found
    python tools/predict.py --checkpoint x.pth --input drive.mp4 --calib camera.txt --out found
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.prediction.options import PredictOptions
from lib.prediction.run import predict
from lib.system.commands import run_command, setup_logging
from lib.system.interruption import Interruption


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="DIR: data/<name>.txt (KITTI result format) and images/<name>.png; for a video\n"
        "data/<name>/<frame>.txt and <name>.mp4; and predict.json with the settings.",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="X.pth")
    source = "images, folders, or patterns ('photos/*.jpg'); or one video; or a camera's number, until Ctrl-C"
    parser.add_argument("--input", required=True, nargs="+", type=Path, metavar="PATH", help=source)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of results; new or empty")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in --out")
    keys = "override keys of the configuration, such as tester.threshold=0.1"
    parser.add_argument("--config", type=Path, metavar="X.yaml", help="for checkpoints without one (official ones)")
    parser.add_argument("--set", dest="overrides", nargs="+", action="extend", default=[], metavar="K=V", help=keys)
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ..; default: the first GPU, or the CPU")
    device.add_argument("--cpu", dest="device", action="store_const", const="cpu", help=argparse.SUPPRESS)
    # older Pythons take -3.4e-01, a number of KITTI's P2, for an option
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    camera = parser.add_argument_group("camera, one of")
    camera.add_argument("--calib", type=Path, metavar="PATH", help="KITTI calibration file, or folder of <name>.txt")
    camera.add_argument("--fx", type=float, help="focal length [px]; with it, where they differ:")
    camera.add_argument("--fy", type=float, help="vertical focal length [px]; default: --fx")
    camera.add_argument("--cx", type=float, help="principal point [px]; default: the image's centre")
    camera.add_argument("--cy", type=float)
    camera.add_argument("--p2", nargs="+", metavar="N", help="projection matrix, 12 numbers by rows")
    guess = "the same horizontal angle of view as KITTI's: a guess"
    camera.add_argument("--assume-kitti-camera", action="store_true", help=guess)
    plain = "do not scale depths to this camera"
    camera.add_argument("--no-focal-correction", dest="correct_depth", action="store_false", help=plain)
    choice = parser.add_argument_group("results")
    lowest = "lowest score in files and images; default: all detections that tester.threshold keeps"
    choice.add_argument("--min-score", type=float, default=0.0, metavar="S", help=lowest)
    choice.add_argument("--threshold", type=float, help=argparse.SUPPRESS)  # the same as --set tester.threshold
    choice.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="default: all of the model's")
    choice.add_argument("--no-images", "--no-pictures", dest="draw", action="store_false", help="write text files only")
    size = "network input; default: fits each image"
    choice.add_argument("--resolution", nargs=2, type=int, metavar=("W", "H"), help=size)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    args = build_parser().parse_args(argv)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken video gives one line of error, which is ours
    setup_logging()
    interruption = Interruption()
    return run_command(lambda: predict(PredictOptions(**vars(args)), interruption), interruption)


if __name__ == "__main__":
    sys.exit(main())
