"""A detector's results as files: KITTI text, annotated images, an annotated video."""

from __future__ import annotations

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
_NEAREST_REACH_M, _FARTHEST_REACH_M = 30.0, 300.0


@dataclass(frozen=True)
class Writing:
    """Where results go, and which."""

    out: Path
    classes: Sequence[str]
    min_score: float = 0.0
    draw: bool = True

    def wanted(self, objects: Sequence[Object3d]) -> list[Object3d]:
        """Those of the classes and scores that were asked for."""
        return [o for o in objects if o.type in self.classes and (o.score or 0.0) >= self.min_score]

    def planned(self, source: Sequence[ImageFile] | Video) -> list[str]:
        """The files of a source's results, relative to ``out``; a folder of text files ends in /."""
        if isinstance(source, Video):
            return [f"data/{source.path.stem}/"] + [f"{source.path.stem}.mp4"] * self.draw
        names = [image.path.stem for image in source]
        return [f"data/{name}.txt" for name in names] + [f"images/{name}.png" for name in names if self.draw]


def predict_images(
    detector: Detector, images: Sequence[ImageFile], frames: Sequence[FrameInfo], writing: Writing
) -> Iterator[int]:
    """Write data/<name>.txt and images/<name>.png of each image; yields its number of detections.

    ``frames``: one for each image, their ids the images' names.
    """
    files = {frame.frame_id: image for frame, image in zip(frames, images, strict=True)}

    def save(found: Detection) -> int:
        objects, name = writing.wanted(found.objects), found.frame.frame_id
        if writing.draw:
            png = cv2.imencode(".png", draw(found, objects))[1]
            write_file(writing.out / "images" / f"{name}.png", png.tobytes())
        write_file(writing.out / "data" / f"{name}.txt", result_text(objects).encode("ascii"))
        return len(objects)

    threads = min(8, available_cores())
    # those that share a network input together, whatever their order in the folder
    frames = sorted(frames, key=lambda frame: detector.way_in(frame.image_size))
    with contextlib.ExitStack() as stack:
        found = detector.stream(frames, lambda frame: files[frame.frame_id].read(), threads)
        stack.enter_context(contextlib.closing(found))
        saved = stack.enter_context(contextlib.closing(map_ahead(save, found, threads, threads)))
        yield from tqdm(saved, "images", len(frames), unit="image", mininterval=progress_interval())


def predict_video(detector: Detector, video: Video, first: FrameInfo, writing: Writing) -> Iterator[int]:
    """Write data/<name>/<frame>.txt, frames counted from 0, and <name>.mp4; yields each frame's number of detections.

    ``first``: what is known about the first frame, and thereby about all.
    """
    name = video.path.stem
    detector = replace(detector, max_batch=min(_VIDEO_BATCH, detector.config.dataset.batch_size))
    rate = video.frame_rate
    if math.isnan(rate):
        rate = DEFAULT_FRAME_RATE
        logger.warning("%s does not say how many frames a second it has; %g are written", video.path, rate)

    def save(found: Detection) -> int:
        objects = writing.wanted(found.objects)
        path = writing.out / "data" / name / f"{found.frame.frame_id}.txt"
        write_file(path, result_text(objects).encode("ascii"))
        if writing.draw:
            annotated.write(draw(found, objects))
        return len(objects)

    count = 0
    with contextlib.ExitStack() as stack:
        annotated = stack.enter_context(VideoFile(writing.out / f"{name}.mp4", rate))
        pixels = stack.enter_context(contextlib.closing(video.read()))
        frames = (replace(first, frame_id=f"{k:06d}") for k in itertools.count())
        found = stack.enter_context(contextlib.closing(detector.stream(frames, lambda _: next(pixels, None))))
        saved = stack.enter_context(contextlib.closing(map_ahead(save, found, 1, _VIDEO_BATCH)))
        interval = progress_interval()
        for objects in tqdm(saved, "frames", video.frames or None, unit="frame", mininterval=interval):
            count += 1
            yield objects
    if count < 0.98 * video.frames - 2:
        logger.warning("%s says that it has %d frames; only %d could be read", video.path, video.frames, count)


def draw(found: Detection, objects: Sequence[Object3d]) -> np.ndarray:
    """The annotated image, BGR; its view from above reaches as far as the camera sees as well as in training."""
    image = cv2.cvtColor(found.image, cv2.COLOR_RGB2BGR)
    reach = math.ceil(RANGE_M * found.frame.depth_scale / 10) * 10.0
    reach = min(max(reach, _NEAREST_REACH_M), _FARTHEST_REACH_M)
    return draw_detections(image, found.frame.calibration, objects, reach)
