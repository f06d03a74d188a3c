"""Frames of a data set, drawn with their labels and detections."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..datasets import KITTI
from ..datasets.kitti import Frame
from ..datasets.object_depth import paint_object_depth
from ..structures import Object3d, read_objects
from ..system.commands import show_progress
from ..system.files import write_file
from ..visualization.drawing import draw_comparison
from ..visualization.overlay import draw_object_depth
from ..visualization.style import encode_image

MIN_SCORE = 0.2  # of the detections drawn by ``tester.images`` and in report.html; see ``choose_min_score``
Detections = Mapping[str, Sequence[Object3d] | None]  # by frame id, of the frames to draw; None: labels alone
Draw = Callable[[np.ndarray], np.ndarray]


def draw_frames(dataset: KITTI, detections: Detections) -> Iterator[tuple[Frame, np.ndarray]]:
    """Yield frame and image of each frame in ``detections``: labels and detections in 3D and from above.

    The image is (H, W, 3) uint8 RGB, see :func:`draw_comparison`. Labels are left out if the split has none, and
    detections if they are None. Raises ValueError or OSError, naming the file, for an image that cannot be read.
    """
    for frame_id, found in show_progress(detections.items(), "drawing", delay=1):
        frame = dataset.read(dataset.index_of[frame_id])
        labels = frame.objects if dataset.has_labels else None
        yield frame, draw_comparison(frame.image, frame.calibration, labels, found)


def write_sample_frames(dataset: KITTI, detections: Mapping[str, Sequence[Object3d]], count: int, folder: Path) -> None:
    """Replace ``folder`` by <frame id>.jpg of ``count`` evenly spaced frames, detections by ``choose_min_score``."""
    shutil.rmtree(folder, ignore_errors=True)
    chosen = {frame_id: detections[frame_id] for frame_id in choose_evenly_spaced(dataset.frame_ids, count)}
    min_score = choose_min_score(dataset, chosen)
    drawn = {frame_id: keep_confident(found, min_score) for frame_id, found in chosen.items()}
    for frame, image in draw_frames(dataset, drawn):
        write_file(folder / f"{frame.frame_id}.jpg", encode_image(image, ".jpg"))


def write_frames(
    dataset: KITTI, detections: Detections, folder: Path, depth_maps: bool = False, draw_heatmaps: Draw | None = None
) -> None:
    """Write ``folder/<frame id>.png`` of each frame in ``detections``, see :func:`draw_frames`.

    ``depth_maps``: write <frame id>_depth.png too, the object-wise depth map painted from the labels. With
    ``draw_heatmaps``, image (H, W, 3) uint8 RGB -> the same with a model's heatmap, <frame id>_heatmap.png too.
    """
    for frame, image in draw_frames(dataset, detections):
        write_file(folder / f"{frame.frame_id}.png", encode_image(image))
        if depth_maps:
            depth_map = paint_object_depth(frame.objects, (frame.image.shape[1], frame.image.shape[0]))
            depth_image = draw_object_depth(frame.image, depth_map)
            write_file(folder / f"{frame.frame_id}_depth.png", encode_image(depth_image))
        if draw_heatmaps is not None:
            write_file(folder / f"{frame.frame_id}_heatmap.png", encode_image(draw_heatmaps(frame.image)))


def read_detections(results: Path, frame_ids: Sequence[str], min_score: float) -> dict[str, list[Object3d]]:
    """Detections with a score of ``min_score`` or more, by frame id, from ``results/<frame id>.txt``."""
    found = {frame_id: read_objects(results / f"{frame_id}.txt", scored=True) for frame_id in frame_ids}
    return {frame_id: keep_confident(objects, min_score) for frame_id, objects in found.items()}


def choose_min_score(dataset: KITTI, detections: Mapping[str, Sequence[Object3d]]) -> float:
    """``MIN_SCORE``; or less, so that as many detections are drawn as the frames have labels of the detected classes
    with a difficulty: those that are seen.

    After a short training all scores may be below ``MIN_SCORE``, although most objects are found.
    """
    classes = {obj.type for found in detections.values() for obj in found}
    labels = [obj for frame_id in detections for obj in dataset.annotation(dataset.index_of[frame_id])[1]]
    number = sum(obj.type in classes and obj.difficulty != "UnKnown" for obj in labels)
    scores = sorted((obj.score or 0.0 for found in detections.values() for obj in found), reverse=True)
    return min([MIN_SCORE, *scores[:number][-1:]])


def keep_confident(objects: Sequence[Object3d], min_score: float) -> list[Object3d]:
    """The objects with a score of ``min_score`` or more; an object without a score has 0."""
    return [obj for obj in objects if (obj.score or 0.0) >= min_score]


def choose_evenly_spaced(frame_ids: Sequence[str], count: int) -> list[str]:
    """``count`` frames from the first to the last, or all if there are fewer."""
    places = np.linspace(0, len(frame_ids) - 1, min(count, len(frame_ids))).round().astype(int)
    return [frame_ids[place] for place in places]
