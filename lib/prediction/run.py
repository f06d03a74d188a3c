"""A whole prediction: check all input, load the network, write the results."""

import contextlib
import logging
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from .. import __version__
from ..datasets.images import check_pixels
from ..ops.text import counted
from ..structures import Calibration, FrameInfo, canonical_names
from ..system.files import require_text_name
from ..system.interruption import Interrupted, Interruption
from .cameras import find_cameras
from .detector import SAME_FOCAL, Detector, load_detector
from .options import PredictOptions
from .result_folder import refuse_to_overwrite, start_results
from .sources import ImageFile, Video, find_source
from .writing import list_files, predict_images, predict_video

logger = logging.getLogger(__name__)


def predict(options: PredictOptions, interruption: Interruption | None = None) -> None:
    """Write the detections of images, a video, or a camera; those of a camera until ``interruption`` gets a signal.

    Raises FileNotFoundError, FileExistsError or ValueError, for most input before anything is written.
    """
    source, interruption = find_source(*options.inputs), interruption or Interruption()
    images: Sequence[ImageFile | Video] = [source] if isinstance(source, Video) else source
    cameras = find_cameras(options, images)
    if isinstance(source, Video):
        require_text_name(options.out.absolute())  # of the drawn video
    inputs = [*(image.path for image in images), options.checkpoint, options.calib, options.config]
    refuse_to_overwrite(options.out, options.overwrite, [path for path in inputs if path])
    detector = _build_detector(options)
    names = detector.config.dataset.class_names
    spelling = canonical_names(names)
    options = replace(options, classes=[spelling.get(name.lower(), name) for name in options.classes])
    for name in options.classes:
        if name not in names:
            raise ValueError(f"--classes: the model has no class {name!r}; it has {', '.join(names)}")
    frames = _make_frames(detector, images, cameras)
    options = replace(options, classes=options.classes or names)
    logger.info("classes: %s; network input: %s", ", ".join(options.classes), _describe_inputs(detector, frames))
    logger.info(_describe_cameras(detector, frames))
    start_results(options.out, list_files(options, source), _make_record(options, detector, frames))
    started, data, drawn = time.perf_counter(), options.out / "data", options.out / "images"
    if isinstance(source, Video):
        live = source.camera is not None
        with interruption.deferred() if live else contextlib.nullcontext():
            stop = (lambda: interruption.signum is not None) if live else (lambda: False)
            counts = predict_video(detector, source, frames[0], options, stop)
        if live and interruption.signum is None:
            logger.warning("%s ended: it gives no more frames, or frames of another size", source.path)
        data, drawn = data / source.path.stem, options.out / f"{source.path.stem}.mp4"
    else:
        counts = predict_images(detector, source, frames, options)
    seconds, count = time.perf_counter() - started, counted(len(counts), "frame" if images == [source] else "image")
    places = f"{data}, drawn: {drawn}" if options.draw else str(data)
    speed = f"{seconds:.1f} s, {len(counts) / seconds:.2f} images/s"
    logger.info("%s in %s, %s: %s", count, speed, counted(sum(counts), "detection"), places)
    if interruption.signum not in (None, signal.SIGINT):  # Ctrl-C is how a camera is ended
        raise Interrupted(interruption.signum or signal.SIGTERM)


def _build_detector(options: PredictOptions) -> Detector:
    detector = load_detector(options.checkpoint, options.config, _find_device(options.device), options.overrides)
    return replace(
        detector,
        threshold=detector.threshold if options.threshold is None else options.threshold,
        resolution=(options.resolution[0], options.resolution[1]) if options.resolution else None,
        correct_depth=options.correct_depth,
    )


def _find_device(name: str | None) -> torch.device | None:
    """Raises ValueError for a device that PyTorch does not know or this machine does not have."""
    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device: {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    logger.info("device: %s (--device)", device)
    return device


def _make_frames(
    detector: Detector, images: Sequence[ImageFile | Video], cameras: Sequence[Calibration]
) -> list[FrameInfo]:
    """Raises ValueError naming an image that is too large for the network or has too many pixels."""
    frames = []
    for image, camera in zip(images, cameras, strict=True):
        check_pixels(image.path, image.image_size, detector.config.dataset.max_image_pixels)
        try:
            frames.append(detector.frame(image.path.stem, image.image_size, camera))
        except ValueError as error:
            raise ValueError(f"{image.path}: {error}") from None
    return frames


def _describe_cameras(detector: Detector, frames: Sequence[FrameInfo]) -> str:
    """The focal lengths, and what they change in the depths."""
    ratios = [detector.focal_ratio(frame.image_size, frame.calibration) for frame in frames]
    low, high = f"{min(ratios):.3f}", f"{max(ratios):.3f}"
    changed = sum(frame.depth_scale != 1 for frame in frames)
    if not detector.correct_depth:
        treatment = "depths are not changed (--no-focal-correction)"
    elif not changed:
        treatment = f"that is within {SAME_FOCAL:.0%}, depths are not changed"
    else:
        some = f" of {changed} images, those beyond {SAME_FOCAL:.0%}," if changed < len(frames) else ""
        treatment = f"depths{some} are multiplied by it"
    training = f"{detector.focal_net:.1f} px at network resolution"
    if not detector.focal_net_known:
        training += ", that of KITTI, since the checkpoint has none"
    doubt = "; that is far off: are the camera's numbers in pixels of these images?"
    return (
        f"focal length: {low if low == high else f'{low} .. {high}'} times that of the training ({training}): "
        f"{treatment}{doubt if min(ratios) < 0.2 or max(ratios) > 5 else ''}"
    )


def _describe_inputs(detector: Detector, frames: Sequence[FrameInfo]) -> str:
    found = Counter(detector.settings(frame.image_size).resolution for frame in frames).items()
    return ", ".join(f"{w} x {h}" + (f" ({counted(n, 'image')})" if len(found) > 1 else "") for (w, h), n in found)


def _make_record(options: PredictOptions, detector: Detector, frames: Sequence[FrameInfo]) -> dict[str, object]:
    """The content of predict.json."""
    scales = [frame.depth_scale for frame in frames]
    return {
        "version": __version__,
        "checkpoint": str(options.checkpoint),
        "input": str(options.input) if isinstance(options.input, Path) else [str(path) for path in options.input],
        "classes": list(options.classes),
        "threshold": detector.threshold,
        "min_score": options.min_score,
        "focal_net_of_training": detector.focal_net if detector.focal_net_known else None,
        "depth_scale": [min(scales), max(scales)],
        "focal_correction": detector.correct_depth,
        "resolutions": sorted({detector.settings(frame.image_size).resolution for frame in frames}),
        "P2": {frame.frame_id: frame.calibration.P2.tolist() for frame in frames},
    }
