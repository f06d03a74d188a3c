#!/usr/bin/env python3
"""Detections on your own images, without labels: an image, a folder of images, or a video.

    python tools/predict.py --checkpoint x.pth --input photos --fx 1400 --out found
    python tools/predict.py --checkpoint x.pth --input drive.mp4 --calib camera.txt --out found
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib import __version__
from lib.ops.affine import INPUT_MULTIPLE
from lib.prediction.cameras import camera_from_words, cameras_from_folder, one_camera
from lib.prediction.detector import SAME_FOCAL, Detector, load_detector
from lib.prediction.result_folder import begin_results, refuse_to_overwrite
from lib.prediction.sources import ImageFile, Video, check_images, find_images, is_image
from lib.prediction.writing import Writing, predict_images, predict_video
from lib.structures import Calibration, FrameInfo
from lib.structures.camera import assumed_kitti_camera, camera_from_intrinsics
from lib.system.commands import progress_interval, run_command, setup_logging
from lib.system.interruption import Interruption

logger = logging.getLogger("lib.tools.predict")

NO_CAMERA = (
    "the camera is not known: the network reads depth from sizes in pixels, so without a focal length all distances "
    "would be wrong by an unknown factor; give --fx (pixels), --p2 or --calib, or --assume-kitti-camera for a guess"
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--out gets data/<name>.txt (KITTI result format) and images/<name>.png; for a video "
        "data/<name>/<frame>.txt and <name>.mp4; and predict.json, which says what they were made with.",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="X.pth")
    parser.add_argument("--input", required=True, type=Path, metavar="PATH", help="image, folder or video")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where results go; new or empty")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in --out")
    parser.add_argument("--config", type=Path, metavar="X.yaml", help="for checkpoints without one (official ones)")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    # older Pythons take -3.4e-01, as KITTI's P2 has it, for an option
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    camera = parser.add_argument_group("camera, one of")
    camera.add_argument("--calib", type=Path, metavar="PATH", help="KITTI calibration file, or folder of <name>.txt")
    camera.add_argument("--fx", type=float, help="focal length [px]; with it, where they differ:")
    camera.add_argument("--fy", type=float, help="vertical focal length [px]; default: --fx")
    camera.add_argument("--cx", type=float, help="principal point [px]; default: the image's centre")
    camera.add_argument("--cy", type=float)
    camera.add_argument("--p2", nargs="+", metavar="N", help="projection matrix, 12 numbers by rows")
    camera.add_argument("--assume-kitti-camera", action="store_true", help="as wide an angle as KITTI's: a guess")
    camera.add_argument("--no-focal-correction", action="store_true", help="leave depths as the network gives them")
    choice = parser.add_argument_group("what to keep")
    choice.add_argument("--threshold", type=float, metavar="T", help="lowest heatmap value; default: the config's")
    choice.add_argument("--min-score", type=float, default=0.0, metavar="S", help="lowest score; default: 0")
    choice.add_argument("--classes", nargs="+", metavar="NAME", help="default: all that the model has")
    choice.add_argument("--no-images", "--no-pictures", action="store_true", help="write text files only")
    choice.add_argument(
        "--resolution", nargs=2, type=int, metavar=("W", "H"), help="network input; default: fits each image"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    args = build_parser().parse_args(argv)
    return run_command(lambda: predict(args), Interruption())


def predict(args: argparse.Namespace) -> int:
    """Look at everything first, then predict. Raises what ``run_command`` turns into one line."""
    setup_logging()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken video is one line, and that is ours
    check_options(args)
    source = find_source(args.input)
    video = isinstance(source, Video)
    images: Sequence[ImageFile | Video] = [source] if isinstance(source, Video) else source
    cameras = find_cameras(args, images)
    given = [args.input, args.checkpoint, *(path for path in (args.calib, args.config) if path)]
    refuse_to_overwrite(args.out, args.overwrite, given)
    detector = build_detector(args)
    names = detector.config.dataset.class_names
    unknown = [name for name in args.classes or () if name not in names]
    if unknown:
        raise ValueError(f"--classes: the model has no class {unknown[0]!r}; it has {', '.join(names)}")
    frames = make_frames(detector, images, cameras)
    writing = Writing(args.out, args.classes or names, args.min_score, not args.no_images)
    logger.info("classes: %s; network input: %s", ", ".join(writing.classes), _inputs(detector, frames))
    logger.info(camera_line(detector, frames))
    begin_results(args.out, writing.planned(source), record(args, detector, frames, writing))
    started = time.perf_counter()
    if isinstance(source, Video):
        counts = list(predict_video(detector, source, frames[0], writing))
    else:
        counts = list(predict_images(detector, source, frames, writing))
    seconds = time.perf_counter() - started
    logger.info(
        "%s in %.1f s, %.2f images/s, %d detections: %s%s",
        _number(len(counts), "frame" if video else "image"),
        seconds,
        len(counts) / seconds,
        sum(counts),
        args.out / "data" / (args.input.stem if video else ""),
        f", drawn: {args.out / (f'{args.input.stem}.mp4' if video else 'images')}" if writing.draw else "",
    )
    return 0


def check_options(args: argparse.Namespace) -> None:
    """What can be told without looking at any file. Raises ValueError."""
    ways = {
        "--calib": args.calib is not None,
        "--fx": args.fx is not None,
        "--p2": args.p2 is not None,
        "--assume-kitti-camera": args.assume_kitti_camera,
    }
    chosen = [name for name, given in ways.items() if given]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude each other: each says what the camera is")
    for name in ("fy", "cx", "cy"):
        if getattr(args, name) is not None and args.fx is None:
            raise ValueError(f"--{name} goes with --fx")
    if not chosen:
        raise ValueError(NO_CAMERA)
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise ValueError(f"--threshold must be in [0, 1], got {args.threshold:g}")
    if not (math.isfinite(args.min_score) and args.min_score >= 0):
        raise ValueError(f"--min-score must be >= 0, got {args.min_score:g}")
    if args.resolution and any(side < INPUT_MULTIPLE or side % INPUT_MULTIPLE for side in args.resolution):
        raise ValueError(f"--resolution must be two multiples of {INPUT_MULTIPLE}, got {args.resolution}")


def find_source(path: Path) -> list[ImageFile] | Video:
    """Images, their headers read, or a video. Raises FileNotFoundError or ValueError naming the file."""
    found = find_images(path)
    if path.is_file() and not is_image(path):
        return Video.from_file(path)
    checked = check_images(found)
    few = len(found) < 500
    return list(tqdm(checked, "headers", len(found), False, mininterval=progress_interval(), disable=few))


def find_cameras(args: argparse.Namespace, images: Sequence[ImageFile | Video]) -> list[Calibration]:
    """The camera of each image. Raises FileNotFoundError or ValueError naming a file or an option."""
    if args.assume_kitti_camera:
        return [assumed_kitti_camera(image.image_size) for image in images]
    if args.calib is not None:
        if args.calib.is_dir():
            return cameras_from_folder(args.calib, images)
        if not args.calib.is_file():
            raise FileNotFoundError(f"{args.calib}: no such calibration file or folder (--calib)")
        return one_camera(images, lambda _: Calibration.from_file(args.calib))
    if args.p2 is not None:
        return one_camera(images, lambda _: camera_from_words(args.p2))
    return one_camera(images, lambda size: camera_from_intrinsics(size, args.fx, args.fy, args.cx, args.cy))


def build_detector(args: argparse.Namespace) -> Detector:
    """As the options want it. Raises FileNotFoundError or ValueError naming the file."""
    if args.cpu:
        logger.info("device: CPU, as --cpu says")
    detector = load_detector(args.checkpoint, args.config, torch.device("cpu") if args.cpu else None)
    return replace(
        detector,
        threshold=detector.threshold if args.threshold is None else args.threshold,
        resolution=tuple(args.resolution) if args.resolution else None,
        correct_depth=not args.no_focal_correction,
    )


def make_frames(
    detector: Detector, images: Sequence[ImageFile | Video], cameras: Sequence[Calibration]
) -> list[FrameInfo]:
    """Raises ValueError naming an image that the network cannot take."""
    frames = []
    for image, camera in zip(images, cameras, strict=True):
        try:
            frames.append(detector.frame(image.path.stem, image.image_size, camera))
        except ValueError as error:
            raise ValueError(f"{image.path}: {error}") from None
    return frames


def camera_line(detector: Detector, frames: Sequence[FrameInfo]) -> str:
    """What the cameras mean for depths."""
    ratios = [detector.focal_ratio(frame.image_size, frame.calibration) for frame in frames]
    low, high = f"{min(ratios):.3f}", f"{max(ratios):.3f}"
    changed = sum(frame.depth_scale != 1 for frame in frames)
    if not detector.correct_depth:
        treatment = "depths are left as they are (--no-focal-correction)"
    elif not changed:
        treatment = f"that is within {SAME_FOCAL:.0%}, depths are left as they are"
    elif changed < len(frames):
        treatment = f"depths of {changed} images, those beyond {SAME_FOCAL:.0%}, are multiplied by it"
    else:
        treatment = "depths are multiplied by it"
    of = f"{detector.focal_net:.1f} px at network resolution"
    if not detector.focal_net_known:
        of += ", that of KITTI, since the checkpoint does not say"
    doubt = "; that is far off: are the camera's numbers in pixels of these images?"
    return (
        f"focal length: {low if low == high else f'{low} .. {high}'} times that of the training ({of}): {treatment}"
        f"{doubt if min(ratios) < 0.2 or max(ratios) > 5 else ''}"
    )


def _inputs(detector: Detector, frames: Sequence[FrameInfo]) -> str:
    found = Counter(detector.settings(frame.image_size).resolution for frame in frames).items()
    return ", ".join(f"{w} x {h}" + (f" ({_number(n, 'image')})" if len(found) > 1 else "") for (w, h), n in found)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def record(
    args: argparse.Namespace, detector: Detector, frames: Sequence[FrameInfo], writing: Writing
) -> dict[str, object]:
    """What results were made with."""
    scales = [frame.depth_scale for frame in frames]
    return {
        "version": __version__,
        "checkpoint": str(args.checkpoint),
        "input": str(args.input),
        "classes": list(writing.classes),
        "threshold": detector.threshold,
        "min_score": writing.min_score,
        "focal_net_of_training": detector.focal_net if detector.focal_net_known else None,
        "depth_scale": [min(scales), max(scales)],
        "focal_correction": detector.correct_depth,
        "resolutions": sorted({detector.settings(frame.image_size).resolution for frame in frames}),
        "P2": {frame.frame_id: frame.calibration.P2.tolist() for frame in frames},
    }


if __name__ == "__main__":
    sys.exit(main())
