"""Evaluation of a model on a split: detections, average precision, depth errors and images, as files."""

import csv
import io
import logging
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import nn

from ..analysis.depth_error import MIN_OVERLAP, DepthErrors, depth_errors
from ..config import Config, dump_config
from ..datasets.kitti import KITTI
from ..datasets.samples import inference_loader
from ..engine.distributed import ProcessGroup
from ..engine.inference import decode_settings, predict, write_results
from ..evaluation import (
    DIFFICULTIES,
    DISTANCE_BANDS,
    METRIC_TITLES,
    KittiResult,
    evaluate_annotations,
    read_annotations,
    type_names_for,
)
from ..models.folding import fold_batch_norm
from ..ops.text import counted, natural_key, text_table
from ..structures import Object3d
from ..system.files import atomic_write, write_file, write_json
from .images import write_sample_frames

logger = logging.getLogger(__name__)


_SUMMARY = [("3d", "easy"), ("3d", "moderate"), ("3d", "hard"), ("bev", "moderate"), ("bbox", "moderate")]


class Figures(NamedTuple):
    """What one evaluation measured."""

    result: KittiResult  # average precisions, also by distance
    depth: list[DepthErrors]  # one for each class


def evaluate_results(config: Config, dataset: KITTI, folder: Path) -> Figures:
    """Average precision and depth errors of the result files ``folder/data/<frame id>.txt``.

    Raises FileNotFoundError for a missing folder or file and ValueError, with file and line, for a malformed one.
    """
    classes = config.dataset.evaluated_classes
    names = type_names_for(classes)
    labels = read_annotations(dataset.label_dir, dataset.frame_ids, False, names)
    detections = read_annotations(folder / "data", dataset.frame_ids, True, names)
    result = evaluate_annotations(labels, detections, classes, DISTANCE_BANDS, config.tester.own_overlaps)
    return Figures(result, [depth_errors(labels, detections, name) for name in classes])


def summarize(figures: Figures) -> str:
    """AP40 and depth errors as text, then the notes. Depth errors of a single class are by depth.

    Rows without a figure are left out but for 3D AP, and of a class that was never detected all but 3D AP. ap.json and
    depth_error.json have all figures.
    """
    result, depth = figures
    ap = [result.rows(result.classes[0])[0]]
    for cls in result.classes:
        shown = [row for row in result.rows(cls)[1:] if set(row[2:]) != {"-"} or row[0] == METRIC_TITLES["3d"]]
        if cls in result.never_detected:
            shown = [row for row in shown if row[0] in ("ground truth", METRIC_TITLES["3d"])][:2]
        ap += [[f"{cls} {title}", *cells] for title, *cells in shown]
    errors = depth[0].rows()
    if len(depth) > 1:
        errors = [["class", *errors[0][1:]], *([own.cls, *own.rows()[-1][1:]] for own in depth)]
    found = [row for row in errors if row[1] != "0"]
    title = f"Depth error e of objects found in the image (2D overlap >= {MIN_OVERLAP:g})"
    tables = [result.describe(), text_table(ap), "", title, text_table(found)]
    return "\n".join([*tables, *(f"note: {note}" for note in result.notes)])


class Evaluator:
    """Evaluates models on one split; results go to ``run_dir/results/<name>/<split>/``.

    Several ranks share the frames; the first one writes the files and computes the figures.
    """

    def __init__(
        self, config: Config, dataset: KITTI, run_dir: Path, device: torch.device, ranks: ProcessGroup
    ) -> None:
        self.config, self.dataset, self.run_dir, self.device, self.ranks = config, dataset, run_dir, device, ranks
        self.figures: dict[str, Figures] = {}  # by name of the results folder: those of this process's evaluations

    def folder(self, name: str) -> Path:
        """Where the results of a checkpoint of that name go."""
        return self.run_dir / "results" / name / self.dataset.split

    def __call__(self, model: nn.Module, name: str) -> dict[str, float]:
        """Detect objects in every frame, write KITTI files and, where there are labels, log and store the figures.

        Returns 'Car 3D moderate AP40' and so on [%], Car first; {} for the test split and on other ranks than 0.
        """
        config, dataset, folder = self.config, self.dataset, self.folder(name)
        started = time.perf_counter()
        loader = inference_loader(dataset, config, self.ranks.rank, self.ranks.size)
        settings, topk = decode_settings(config), config.tester.topk
        own = predict(fold_batch_norm(model), loader, settings, topk, self.device, self.ranks.is_main)
        gathered = self.ranks.gather_objects(own)
        if not self.ranks.is_main:
            return {}
        results = sorted((pair for part in gathered for pair in part), key=lambda pair: dataset.index_of[pair[0]])
        seconds = time.perf_counter() - started
        for file in ("ap.json", "depth_error.json"):
            (folder / file).unlink(missing_ok=True)  # of older detections, if this evaluation fails
        write_results(folder / "data", results)
        write_config(folder / "config.yaml", config)
        speed = len(results) / seconds
        logger.info("%s, %.2f images/s; detections: %s", counted(len(results), "frame"), speed, folder / "data")
        ap = self._measure(name) if dataset.has_labels else {}
        self._draw(dict(results), folder / "images")
        return ap

    def _measure(self, name: str) -> dict[str, float]:
        folder = self.folder(name)
        figures = self.figures[name] = evaluate_results(self.config, self.dataset, folder)
        result, depth = figures
        write_json(folder / "depth_error.json", [errors.to_json() for errors in depth])
        write_json(folder / "ap.json", result.to_json(), sync=True)  # written last: it marks a complete evaluation
        logger.info("%s\nall figures: %s and depth_error.json", summarize(figures), folder / "ap.json")
        return {f"{name} 3D moderate AP40": result.ap(name, "3d") for name in result.classes}

    def summarize_checkpoints(self) -> None:
        """Log AP40 of all checkpoints that were evaluated, a line each, and write it as results/<split>_summary.csv."""
        columns = [(cls, row) for cls in self.config.dataset.evaluated_classes for row in _SUMMARY]
        titles = [f"{cls} {METRIC_TITLES[metric]} {difficulty}" for cls, (metric, difficulty) in columns]
        table = [["checkpoint", *titles]]
        for name, (result, _) in sorted(self.figures.items(), key=lambda item: natural_key(item[0])):
            cells = [result.cells(cls, metric, "official") for cls, (metric, _) in columns]
            places = [DIFFICULTIES.index(difficulty) for _, (_, difficulty) in columns]
            table.append([name, *(row[place] for row, place in zip(cells, places, strict=True))])
        path = self.run_dir / "results" / f"{self.dataset.split}_summary.csv"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        write_file(path, text.getvalue().encode())
        logger.info("AP40 [%%] of all checkpoints: %s\n%s", path, text_table(table))

    def _draw(self, detections: dict[str, list[Object3d]], folder: Path) -> None:
        shutil.rmtree(folder.with_name("pictures"), ignore_errors=True)  # of version 0.1, with older detections
        try:
            write_sample_frames(self.dataset, detections, self.config.tester.images, folder)
        except Exception as error:  # images must not end a training that took days, whatever is wrong with them
            logger.warning("no images in %s: %s", folder, error)


def write_config(path: Path, config: Config) -> None:
    """Write all keys, those left out of the YAML file too."""
    with atomic_write(path) as file:
        file.write(yaml.safe_dump(dump_config(config), sort_keys=False).encode())
