"""Sections of report.html about one evaluation: AP, depth errors, frames with detections."""

from collections.abc import Sequence
from pathlib import Path

from ..config import Config, load_config
from ..datasets import KITTI, build_dataset
from ..ops.text import counted
from ..visualization.evaluation_panels import depth_error_panels, precision_panels
from ..visualization.html_page import Gallery, Image, Part, Section, Table
from ..visualization.style import encode_image
from .evaluation import Figures, evaluate_results
from .images import MIN_SCORE, choose_evenly_spaced, choose_min_score, draw_frames, keep_confident, read_detections
from .report_sections import gallery

_FRAMES, _MAX_WIDTH = 6, 1700  # number and width [px] of the frames; with these the page stays below 5 MB
_DEPTH_ERROR = (
    "e is z of the detection minus z of the object, for objects that are found in the image: by detections of their "
    "class, best score first, with a 2D overlap of at least 0.5. Objects count up to difficulty 'hard'."
)


def evaluation_sections(
    config: Config, results: Path | None, dataset: KITTI | None, figures: Figures | None
) -> list[Section]:
    """The sections of an evaluation, the summary first. Raises OSError or ValueError if it cannot be shown.

    The arguments are those of :func:`~.report.write_report`; ``config`` is the configuration of the training.
    """
    if results is None:
        return [_summary_section("No checkpoint of this run was evaluated.")]
    name = _name(results)
    if (results / "config.yaml").is_file():
        config = load_config(results / "config.yaml")  # -e may have evaluated with another one
    if dataset is None:
        dataset = build_dataset(config, results.name)
    if not dataset.has_labels:
        text = f"{name}. The split has no labels, so there are no figures."
        return [_summary_section(text), _frames_section(results, dataset)]
    figures = figures or evaluate_results(config, dataset, results)
    return [_summarize(name, figures), *_figure_sections(figures), _frames_section(results, dataset)]


def broken_section(results: Path | None, error: Exception) -> Section:
    """What stands on the page in place of an evaluation that cannot be shown."""
    return _summary_section(f"{_name(results)}. It cannot be shown: {error}")


def _name(results: Path | None) -> str:
    return f"Checkpoint {results.parent.name}, split {results.name}" if results else ""


def _summary_section(*parts: Part) -> Section:
    return Section("result", "Result", parts)


def _summarize(name: str, figures: Figures) -> Section:
    """The counts, and a table with one row per class."""
    result = figures.result
    text = f"{name}: {result.describe()}."
    if result.never_detected:
        text += f" Never detected: {', '.join(result.never_detected)}."
    header = ["AP40 [%] of 3D boxes", "easy", "moderate", "hard", "moderate, loose", "median depth error [m]", "found"]
    rows = []
    for errors in figures.depth:
        ap = {(row[0], row[1].partition(" ")[0]): row[2:] for row in result.rows(errors.cls)}
        total = errors.rows()[-1]
        rows.append([errors.cls, *ap["3D", "official"], ap["3D", "loose"][1], total[3], total[2]])
    return _summary_section(text, Table(header, rows), *(f"Note: {note}." for note in result.notes))


def _figure_sections(figures: Figures) -> list[Section]:
    result, depth = figures
    precision: list[Part] = []
    for cls in result.classes:
        panels = precision_panels(result, [cls])
        drawn = any(panel.drawn_lines for panel in panels)
        found = result.has_ground_truth(cls)
        empty = "none of its objects was detected" if found else "it has no ground truth that counts"
        precision.append(gallery(panels) if drawn else f"{cls}: {empty}.")
    by_distance = [_to_table(cls, result.distance_rows(cls)) for cls in result.classes]
    errors = [_to_table(own.cls, own.rows()) for own in depth]
    return [
        Section("ap", "Average precision", [_to_table(cls, result.rows(cls)) for cls in result.classes]),
        Section("precision", "Precision over recall", precision),
        Section("distance", "Average precision by distance", ["AP40 [%] at moderate difficulty.", *by_distance]),
        Section("depth", "Depth error by distance", [_DEPTH_ERROR, gallery(depth_error_panels(depth)), *errors]),
    ]


def _to_table(caption: str, rows: Sequence[Sequence[str]]) -> Table:
    return Table(rows[0], rows[1:], caption)


def _frames_section(results: Path, dataset: KITTI) -> Section:
    """Raises OSError or ValueError for an image, label or result file that cannot be read."""
    chosen = choose_evenly_spaced(dataset.frame_ids, _FRAMES)
    found = read_detections(results / "data", chosen, 0.0)
    min_score = choose_min_score(dataset, found)
    detections = {frame_id: keep_confident(objects, min_score) for frame_id, objects in found.items()}
    images = []
    for frame, image in draw_frames(dataset, detections):
        drawn, everything = (len(objects[frame.frame_id]) for objects in (detections, found))
        caption = f"Frame {frame.frame_id}: {drawn} of {counted(everything, 'detection')}"
        alt = f"{caption}, as 3D boxes in the image and from above"
        images.append(Image(encode_image(image, ".jpg", _MAX_WIDTH), alt, caption))
    text = f"Evenly spaced frames of the split, with detections (solid lines) of score {min_score:.2f} or more"
    text += " and labels (dashed lines)." if dataset.has_labels else "."
    if min_score < MIN_SCORE:
        text += f" Fewer detections than labels have a score of {MIN_SCORE:g}, so that many of the best are drawn."
    return Section("frames", "Detections", [text, Gallery(images, wide=True)])
