"""Detections as files: KITTI result files, annotated images, an annotated video."""

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..engine.inference import result_text
from ..structures import FrameInfo, Object3d
from ..system.commands import show_progress
from ..system.files import write_file
from ..system.machine import available_cores
from ..system.threads import map_ahead
from ..visualization.birds_eye import RANGE_M
from ..visualization.drawing import draw_detections
from ..visualization.style import encode_image
from ..visualization.video import open_video
from .detector import Detection, Detector
from .options import PredictOptions
from .sources import ImageFile, Video

logger = logging.getLogger(__name__)

DEFAULT_FRAME_RATE = 25.0
_VIDEO_BATCH = 4
_RANGES_M = 30.0, 300.0


def list_files(options: PredictOptions, source: Sequence[ImageFile] | Video) -> list[str]:
    """All files of a source's results, relative to ``options.out``; the name of a folder of text files ends in /."""
    if isinstance(source, Video):
        return [f"data/{source.path.stem}/"] + [f"{source.path.stem}.mp4"] * options.draw
    names = [image.path.stem for image in source]
    return [f"data/{name}.txt" for name in names] + [f"images/{name}.png" for name in names if options.draw]


def predict_images(
    detector: Detector, images: Sequence[ImageFile], frames: Sequence[FrameInfo], options: PredictOptions
) -> list[int]:
    """Write data/<name>.txt and images/<name>.png of each image; returns the numbers of detections.

    ``frames``: one for each image, with the image's name as its id.
    """
    files = {frame.frame_id: image for frame, image in zip(frames, images, strict=True)}

    def write_png(name: str, image: np.ndarray) -> None:
        write_file(options.out / "images" / f"{name}.png", encode_image(image))

    threads = min(8, available_cores())
    # sorted, so that images with the same network input form full batches
    frames = sorted(frames, key=lambda frame: detector.settings(frame.image_size).resolution)
    detections = detector.stream(frames, lambda frame: files[frame.frame_id].read(), threads)
    return _save_all(detections, options, options.out / "data", write_png, threads, threads, len(frames))


def predict_video(
    detector: Detector,
    video: Video,
    first: FrameInfo,
    options: PredictOptions,
    stop: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Write data/<name>/<frame>.txt, frames counted from 0, and <name>.mp4; returns the numbers of detections.

    ``first``: the first frame; the others differ in their id only. ``stop``: asked before each frame.
    """
    name = video.path.stem
    detector = replace(detector, max_batch=min(_VIDEO_BATCH, detector.config.dataset.batch_size))
    rate = video.frame_rate
    if math.isnan(rate):
        rate = DEFAULT_FRAME_RATE
        logger.warning("%s: unknown frame rate; the video is written with %g frames per second", video.path, rate)

    frames = (replace(first, frame_id=f"{k:06d}") for k in itertools.count())
    with open_video(options.out / f"{name}.mp4", rate) as append, contextlib.closing(video.read()) as pixels:
        detections = detector.stream(frames, lambda _: None if stop() else next(pixels, None))
        folder, total = options.out / "data" / name, video.frames or None
        counts = _save_all(detections, options, folder, lambda _, image: append(image), 1, _VIDEO_BATCH, total)
    if len(counts) < 0.98 * video.frames - 2:
        logger.warning("%s: its header has %d frames, but only %d could be read", video.path, video.frames, len(counts))
    return counts


def _save_all(
    detections: Generator[Detection, None, None],
    options: PredictOptions,
    folder: Path,
    write_image: Callable[[str, np.ndarray], None],
    threads: int,
    ahead: int,
    total: int | None,
) -> list[int]:
    def save(detection: Detection) -> int:
        found, name = detection.objects, detection.frame.frame_id
        objects = [o for o in found if o.type in options.classes and (o.score or 0.0) >= options.min_score]
        if options.draw:
            write_image(name, draw(detection, objects))
        write_file(folder / f"{name}.txt", result_text(objects).encode("ascii"))
        return len(objects)

    with contextlib.closing(detections), contextlib.closing(map_ahead(save, detections, threads, ahead)) as saved:
        return list(show_progress(saved, "images", total, "image"))


def draw(detection: Detection, objects: Sequence[Object3d]) -> np.ndarray:
    """The annotated image (H, W, 3) uint8, RGB; the range of its bird's-eye view grows with the focal length."""
    range_m = float(np.clip(math.ceil(RANGE_M * detection.frame.depth_scale / 10) * 10, *_RANGES_M))
    return draw_detections(detection.image, detection.frame.calibration, objects, range_m)
