"""Detections as files: KITTI result files, annotated images, an annotated video."""

import contextlib
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..engine.inference import result_text
from ..structures import FrameInfo, Object3d
from ..system.commands import progress_interval
from ..system.files import write_file
from ..system.machine import available_cores
from ..system.threads import map_ahead
from ..visualization import draw_detections
from ..visualization.birds_eye import RANGE_M
from ..visualization.video import VideoFile
from .detector import Detection, Detector
from .sources import ImageFile, Video

logger = logging.getLogger(__name__)

DEFAULT_FRAME_RATE = 25.0
_VIDEO_BATCH = 4
_MIN_RANGE_M, _MAX_RANGE_M = 30.0, 300.0


@dataclass(frozen=True)
class OutputOptions:
    """Where results are written, and which objects."""

    folder: Path
    classes: Sequence[str]
    min_score: float = 0.0
    draw: bool = True

    def select(self, objects: Sequence[Object3d]) -> list[Object3d]:
        """The objects of ``classes`` with at least ``min_score``."""
        return [o for o in objects if o.type in self.classes and (o.score or 0.0) >= self.min_score]

    def list_files(self, source: Sequence[ImageFile] | Video) -> list[str]:
        """All files of a source's results, relative to ``folder``; the name of a folder of text files ends in /."""
        if isinstance(source, Video):
            return [f"data/{source.path.stem}/"] + [f"{source.path.stem}.mp4"] * self.draw
        names = [image.path.stem for image in source]
        return [f"data/{name}.txt" for name in names] + [f"images/{name}.png" for name in names if self.draw]


def predict_images(
    detector: Detector, images: Sequence[ImageFile], frames: Sequence[FrameInfo], output: OutputOptions
) -> Iterator[int]:
    """Write data/<name>.txt and images/<name>.png of each image; yields its number of detections.

    ``frames``: one for each image, with the image's name as its id.
    """
    files = {frame.frame_id: image for frame, image in zip(frames, images, strict=True)}

    def save(detection: Detection) -> int:
        objects, name = output.select(detection.objects), detection.frame.frame_id
        if output.draw:
            png = cv2.imencode(".png", draw(detection, objects))[1]
            write_file(output.folder / "images" / f"{name}.png", png.tobytes())
        write_file(output.folder / "data" / f"{name}.txt", result_text(objects).encode("ascii"))
        return len(objects)

    threads = min(8, available_cores())
    # sorted, so that images with the same network input form full batches
    frames = sorted(frames, key=lambda frame: detector.batch_key(frame.image_size))
    with contextlib.ExitStack() as stack:
        detections = detector.stream(frames, lambda frame: files[frame.frame_id].read(), threads)
        stack.enter_context(contextlib.closing(detections))
        saved = stack.enter_context(contextlib.closing(map_ahead(save, detections, threads, threads)))
        yield from tqdm(saved, "images", len(frames), unit="image", mininterval=progress_interval())


def predict_video(detector: Detector, video: Video, first: FrameInfo, output: OutputOptions) -> Iterator[int]:
    """Write data/<name>/<frame>.txt, frames counted from 0, and <name>.mp4; yields each frame's number of detections.

    ``first``: the first frame; the others differ in their id only.
    """
    name = video.path.stem
    detector = replace(detector, max_batch=min(_VIDEO_BATCH, detector.config.dataset.batch_size))
    rate = video.frame_rate
    if math.isnan(rate):
        rate = DEFAULT_FRAME_RATE
        logger.warning("%s: unknown frame rate; the video is written with %g frames per second", video.path, rate)

    def save(detection: Detection) -> int:
        objects = output.select(detection.objects)
        path = output.folder / "data" / name / f"{detection.frame.frame_id}.txt"
        write_file(path, result_text(objects).encode("ascii"))
        if output.draw:
            annotated.write(draw(detection, objects))
        return len(objects)

    count = 0
    with contextlib.ExitStack() as stack:
        annotated = stack.enter_context(VideoFile(output.folder / f"{name}.mp4", rate))
        pixels = stack.enter_context(contextlib.closing(video.read()))
        frames = (replace(first, frame_id=f"{k:06d}") for k in itertools.count())
        detections = stack.enter_context(contextlib.closing(detector.stream(frames, lambda _: next(pixels, None))))
        saved = stack.enter_context(contextlib.closing(map_ahead(save, detections, 1, _VIDEO_BATCH)))
        interval = progress_interval()
        for objects in tqdm(saved, "frames", video.frames or None, unit="frame", mininterval=interval):
            count += 1
            yield objects
    if count < 0.98 * video.frames - 2:
        logger.warning("%s: its header has %d frames, but only %d could be read", video.path, video.frames, count)


def draw(detection: Detection, objects: Sequence[Object3d]) -> np.ndarray:
    """The annotated image (H, W, 3) uint8, BGR; the range of its bird's-eye view grows with the focal length."""
    image = cv2.cvtColor(detection.image, cv2.COLOR_RGB2BGR)
    range_m = math.ceil(RANGE_M * detection.frame.depth_scale / 10) * 10.0
    range_m = min(max(range_m, _MIN_RANGE_M), _MAX_RANGE_M)
    return draw_detections(image, detection.frame.calibration, objects, range_m)
