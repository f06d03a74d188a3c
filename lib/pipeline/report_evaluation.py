"""Sections of report.html about detections: AP, depth errors, best and worst frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.evaluate_kitti import precision_curves
from tools.visualize import MIN_SCORE, comparison_panels, confident, encode, evenly_spaced

from ..analysis.depth_error import DepthErrors
from ..analysis.frames import FrameScores, frame_scores
from ..config import Config, find_dataroot, load_config
from ..datasets.kitti import KITTI
from ..evaluation import DISTANCE_BANDS, KittiResult
from ..pipeline.folder import evaluate_folder
from ..structures import Object3d, read_objects
from ..visualization.evaluation_panels import depth_error_panels, precision_panels
from ..visualization.html_page import Gallery, Image, Part, Section, Table
from ..visualization.panels import Panel
from .report_run import gallery

_FRAMES = 3
"""best and worst frames, each"""
_WIDTH = 1700
"""[px] of their images at most: six of them leave the page below 5 MB"""
_DEPTH_ERROR = (
    "e is z of the detection minus z of the object, for objects that are found in the image: by detections of their "
    "class, best score first, with a 2D overlap of at least 0.5. Objects count up to difficulty 'hard'."
)
_F1 = (
    "By F1 of 3D boxes, at moderate difficulty and the loose overlap, over detections from the score on that makes F1 "
    "of the whole split largest: {right}. {never}Labels are orange and wide, detections blue and thin. Labels that are "
    "too small or too hidden for 'moderate' are drawn, but do not count."
)


@dataclass(frozen=True)
class Evaluated:
    """All figures of one evaluation."""

    result: KittiResult
    depth: list[DepthErrors]
    frames: FrameScores


def evaluation(config: Config, results: Path | None, dataset: KITTI | None) -> list[Section]:
    """What is known about the detections, or why nothing is; the first section is the one for the page's head.

    ``results``: folder with data/, None where nothing was evaluated. ``dataset``: its split; None: look for it where
    the configuration says.
    """
    if results is None:
        return [_head("No checkpoint of this run was evaluated.")]
    name = f"Checkpoint {results.parent.name}, split {results.name}"
    try:
        if (results / "config.yaml").is_file():
            config = load_config(results / "config.yaml")  # with -e, it may be another one than the training's
        if dataset is None:
            dataset = KITTI(find_dataroot(config), results.name)
        if not dataset.has_labels:
            return [_head(f"{name}. The split has no labels, so there are no figures."), _some_frames(results, dataset)]
        evaluated = evaluate(config, results, dataset)
        frames = _best_and_worst(evaluated.frames, results, dataset)
    except (OSError, ValueError) as error:  # the data set has moved, say: the rest of the page is worth having
        return [_head(f"{name}. It cannot be shown: {error}")]
    return [_summary(name, evaluated), *_figures(evaluated), frames]


def evaluate(config: Config, results: Path, dataset: KITTI) -> Evaluated:
    """Evaluate once more, from the files: it takes a fraction of a second. Raises OSError or ValueError."""
    classes = config.dataset.writelist
    overlaps = {name: (pair[0], pair[1]) for name, pair in config.tester.overlaps.items()}
    result, depth, labels, detections = evaluate_folder(
        dataset.label_dir, results / "data", dataset.frame_ids, classes, DISTANCE_BANDS, overlaps
    )
    return Evaluated(result, depth, frame_scores(labels, detections, classes, overlaps))


def _head(*parts: Part) -> Section:
    return Section("result", "Result", parts)


def _summary(name: str, evaluated: Evaluated) -> Section:
    """A line for each class."""
    result = evaluated.result
    said = f"{name}: {result.n_frames} frames, {result.n_labels} labels, {result.n_detections} detections."
    if result.never_detected:
        said += f" Never detected: {', '.join(result.never_detected)}."
    header = ["AP40 [%] of 3D boxes", "easy", "moderate", "hard", "moderate, loose", "median depth error [m]", "found"]
    rows = []
    for errors in evaluated.depth:
        figures = {(row[0], row[1].partition(" ")[0]): row[2:] for row in result.rows(errors.cls)}
        total = errors.rows()[-1]
        rows.append([errors.cls, *figures["3D", "official"], figures["3D", "loose"][1], total[3], total[2]])
    return _head(said, Table(header, rows))


def _figures(evaluated: Evaluated) -> list[Section]:
    result, depth = evaluated.result, evaluated.depth
    curves = precision_curves(result)
    bands = {errors.cls: errors.to_json()["bands"] for errors in depth}
    by_distance = [_table(cls, result.distance_rows(cls)) for cls in result.classes]
    errors = [_table(errors.cls, errors.rows()) for errors in depth]
    return [
        Section("ap", "Average precision", [_table(cls, result.rows(cls)) for cls in result.classes]),
        Section(
            *("precision", "Precision over recall"),
            [_precision(cls, precision_panels([cls], curves)) for cls in result.classes],
        ),
        Section("distance", "Average precision by distance", ["AP40 [%] at moderate difficulty.", *by_distance]),
        Section("depth", "Depth error by distance", [_DEPTH_ERROR, gallery(depth_error_panels(bands)), *errors]),
    ]


def _table(caption: str, rows: Sequence[Sequence[str]]) -> Table:
    return Table(rows[0], rows[1:], caption)


def _precision(cls: str, panels: Sequence[Panel]) -> Part:
    return gallery(panels) if any(panel.drawn for panel in panels) else f"{cls}: no detection is right."


def _best_and_worst(scores: FrameScores, results: Path, dataset: KITTI) -> Section:
    best, worst = scores.extremes(_FRAMES)
    lowest = {cls: score if np.isfinite(score) else MIN_SCORE for cls, score in scores.min_scores.items()}
    never = [cls for cls, score in scores.min_scores.items() if not np.isfinite(score)]
    right = [f"{cls} {score:.2f}" for cls, score in lowest.items() if cls not in never]
    found = {}
    for frame_id in (dataset.frame_ids[k] for k in (*best, *worst)):
        objects = read_objects(results / "data" / f"{frame_id}.txt")
        found[frame_id] = [obj for obj in objects if (obj.score or 0.0) >= lowest.get(obj.type, np.inf)]
    images = dict(_draw(dataset, found))
    said = f"No detection is right of {', '.join(never)}; drawn from {MIN_SCORE:.2f} on. " if never else ""
    parts: list[Part] = [_F1.format(right=", ".join(right) or "there is none", never=said)]
    for title, frames in (("Best", best), ("Worst", worst)):
        shown = []
        for k in frames:
            counts = f"{scores.true_positives[k]} right, {scores.false_positives[k]} wrong, {scores.misses[k]} missed"
            name = f"{title}: frame {dataset.frame_ids[k]}"
            shown.append(_image(images[dataset.frame_ids[k]], name, f"F1 {scores.f1[k]:.2f}, {counts}"))
        parts.append(Gallery(shown, wide=True) if shown else f"{title}: no frame has anything that counts.")
    return Section("frames", "Best and worst frames", parts)


def _some_frames(results: Path, dataset: KITTI) -> Section:
    chosen = evenly_spaced(dataset.frame_ids, 2 * _FRAMES)
    found = {i: confident(read_objects(results / "data" / f"{i}.txt"), MIN_SCORE) for i in chosen}
    images = [
        _image(content, f"Frame {frame_id}", f"{len(found[frame_id])} detections")
        for frame_id, content in _draw(dataset, found)
    ]
    said = f"Some frames of the split, with detections of score {MIN_SCORE:g} or more."
    return Section("frames", "Detections", [said, Gallery(images, wide=True)])


def _image(content: bytes, name: str, counts: str) -> Image:
    return Image(content, f"{name}, with 3D boxes in the image and from above: {counts}", f"{name}: {counts}")


def _draw(dataset: KITTI, found: dict[str, list[Object3d]]) -> list[tuple[str, bytes]]:
    return [(frame_id, encode(panel, ".jpg", _WIDTH)) for frame_id, panel in comparison_panels(dataset, found)]
