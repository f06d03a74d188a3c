"""Evaluation of a network on a split, for training and for -e: detections, figures and images as files."""

from __future__ import annotations

import json
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn

from tools.visualize import draw_some

from ..config import Config, dump_config
from ..datasets.kitti import KITTI
from ..datasets.samples import inference_loader
from ..engine.distributed import Ranks
from ..engine.inference import decode_settings, predict, write_results
from ..models.folding import fold_batch_norm
from ..pipeline.folder import evaluate_folder
from ..structures import Object3d
from ..system.files import atomic_write, write_file
from ..system.interruption import Interruption

logger = logging.getLogger("lib.tools.train_val")


@dataclass(frozen=True)
class Job:
    """What training and evaluation share."""

    config: Config
    run_dir: Path
    evaluation_set: KITTI
    device: torch.device
    ranks: Ranks
    interruption: Interruption
    until_the_end: ExitStack


def evaluate_model(job: Job, model: nn.Module, name: str) -> dict[str, float]:
    """Predict a split, write KITTI files, and (where there are labels) print and store AP and depth errors.

    Several processes share the frames; the first one does the rest.

    Returns:
        'Car 3D moderate AP40' and so on [%]; Car first if it is evaluated. Empty for the test split, and in all
        processes but the first.
    """
    config, dataset, ranks = job.config, job.evaluation_set, job.ranks
    settings = decode_settings(config)
    started = time.perf_counter()
    loader = inference_loader(dataset, config, ranks.rank, ranks.size)
    own = predict(fold_batch_norm(model), loader, settings, config.tester.topk, job.device, ranks.first)
    shares = ranks.collect(own)
    if not ranks.first:
        return {}
    results = sorted((result for share in shares for result in share), key=lambda pair: dataset.number[pair[0]])
    seconds = time.perf_counter() - started
    folder = job.run_dir / "results" / name / dataset.split
    for figures in ("ap.json", "depth_error.json"):
        (folder / figures).unlink(missing_ok=True)  # never older figures beside newer detections
    write_results(folder / "data", results)
    write_config(folder / "config.yaml", config)
    speed = len(results) / seconds
    logger.info("%d frames, %.2f images/s; detections: %s", len(results), speed, folder / "data")
    if not dataset.has_labels:
        draw_images(dataset, dict(results), config.tester.images, folder / "images")
        return {}
    ap = write_figures(config, dataset, folder)
    draw_images(dataset, dict(results), config.tester.images, folder / "images")
    return ap


def write_figures(config: Config, dataset: KITTI, folder: Path) -> dict[str, float]:
    """Average precision and depth errors of the detections in folder/data, printed and stored; returns the main AP."""
    classes = sorted(config.dataset.writelist, key=lambda name: name != "Car")
    overlaps = {name: (pair[0], pair[1]) for name, pair in config.tester.overlaps.items()}
    figures = evaluate_folder(dataset.label_dir, folder / "data", dataset.frame_ids, classes, own_overlaps=overlaps)
    result, depth = figures.result, figures.depth
    write_file(folder / "depth_error.json", json.dumps([errors.to_json() for errors in depth], indent=1).encode())
    with atomic_write(folder / "ap.json") as file:  # the last: it says that this evaluation is complete
        file.write(json.dumps(result.to_json(), indent=1).encode())
    tables = "\n".join([result.table(), *(errors.table() for errors in depth)])
    logger.info("%s\nsaved as %s and depth_error.json", tables, folder / "ap.json")
    return {f"{name} 3D moderate AP40": result.ap(name, "3d") for name in classes}


def draw_images(dataset: KITTI, detections: dict[str, list[Object3d]], count: int, folder: Path) -> None:
    """``tester.images``. What goes wrong is a warning: images must not end a training that took days."""
    try:
        draw_some(dataset, detections, count, folder)
    except Exception as error:  # whatever it is
        logger.warning("no images in %s: %s", folder, error)


def write_config(path: Path, config: Config) -> None:
    """All keys, also those that the YAML left out."""
    with atomic_write(path) as file:
        file.write(yaml.safe_dump(dump_config(config), sort_keys=False).encode())
