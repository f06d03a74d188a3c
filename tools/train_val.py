#!/usr/bin/env python3
"""Train a detector from one YAML file, then evaluate it; with -e, evaluate only."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.config import CLASS_NAMES, PROJECT_ROOT, Config, dump_config, find_dataroot, load_config
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import folder_for
from lib.datasets.samples import inference_loader, training_loader
from lib.datasets.targets import MEAN_SIZES
from lib.engine.checkpoint import load_model_state, read_checkpoint
from lib.engine.device import choose_device, seed_everything
from lib.engine.inference import predict, write_results
from lib.engine.metrics import read_metrics
from lib.engine.optim import build_optimizer
from lib.engine.runtime import run_command, setup_logging
from lib.engine.trainer import Parts, train
from lib.evaluation import evaluate_kitti
from lib.files import atomic_write
from lib.losses import Criterion
from lib.models import build_model
from lib.models.pretrained import load_imagenet_weights
from lib.postprocess import DecodeSettings
from lib.visualization.curves import plot_metrics

logger = logging.getLogger("lib.tools.train_val")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 for a run that failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Everything goes to outputs/<exp_name>/ below the working directory: config.yaml, train.log, "
        "metrics.jsonl, curves.png, checkpoints/, results/<checkpoint>/<split>/ (KITTI text files and ap.json).",
    )
    parser.add_argument("--config", required=True, metavar="X.yaml", help="the experiment")
    parser.add_argument(
        *("-e", "--e", "--evaluate_only"),
        dest="evaluate_only",
        action="store_true",
        help="evaluate tester.checkpoint (or the run's newest) without training",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override keys of the YAML"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run of the same exp_name first")
    args = parser.parse_args(argv)
    return run_command(lambda: run(load_config(args.config, args.set), args.evaluate_only, args.overwrite))


def run(config: Config, evaluate_only: bool = False, overwrite: bool = False) -> int:
    """The whole job of one experiment. Raises what ``run_command`` turns into one line."""
    run_dir = Path("outputs") / config.general.exp_name
    if not evaluate_only:
        _claim(run_dir, config, overwrite)
    setup_logging(run_dir / ("evaluate.log" if evaluate_only else "train.log"))
    seed_everything(config.general.random_seed)
    device = choose_device(config.trainer.gpu_ids)
    dataset = KITTI(find_dataroot(config), config.tester.split)
    logger.info("evaluation split %s: %d frames below %s", config.tester.split, len(dataset), dataset.data_dir)
    if not evaluate_only:
        final = run_training(config, run_dir, dataset, device)
        plot = plot_metrics(read_metrics(run_dir / "metrics.jsonl"), run_dir / "curves.png")
        logger.info("training curves: %s", plot)
        checkpoints = _after_training(config, run_dir, final)
    else:
        checkpoints = _to_evaluate(config, run_dir)
    for path in checkpoints:
        # the obj_depth head is for training only
        model = build_model(replace(config, general=replace(config.general, obj_depth=False)))
        load_model_state(model, read_checkpoint(path)["model_state"], path)
        logger.info("evaluating %s", path)
        evaluate_model(model, path.stem, config, run_dir, dataset, device)
    return 0


def run_training(config: Config, run_dir: Path, evaluation_set: KITTI, device: torch.device) -> Path:
    """Build the parts and train. Returns the last checkpoint."""
    depth_folder = folder_for(config.dataset.writelist) if config.general.obj_depth else None
    frames = KITTI(find_dataroot(config), config.dataset.train_split, depth_folder)
    resume = find_checkpoint(config.trainer.resume_model, run_dir) if config.trainer.resume_model else None
    model = build_model(config)
    if config.trainer.pretrain_model and not resume:
        path = find_checkpoint(config.trainer.pretrain_model, run_dir)
        load_model_state(model, read_checkpoint(path)["model_state"], path)
    elif config.model.pretrained and not resume:
        load_imagenet_weights(model.backbone, config.model.backbone, config.model.pretrained)
    with atomic_write(run_dir / "config.yaml") as file:
        file.write(yaml.safe_dump(dump_config(config), sort_keys=False).encode())
    logger.info("training split %s: %d frames; this run: %s", frames.split, len(frames), run_dir)

    def evaluate(current: nn.Module, name: str) -> dict[str, float]:
        return evaluate_model(current, name, config, run_dir, evaluation_set, device)

    optimizer = build_optimizer(model, config.optimizer)
    criterion = Criterion(config.general)
    return train(
        Parts(model, criterion, optimizer, training_loader(frames, config), device, config), run_dir, resume, evaluate
    )


def evaluate_model(
    model: nn.Module, name: str, config: Config, run_dir: Path, dataset: KITTI, device: torch.device
) -> dict[str, float]:
    """Predict a split, write KITTI files, and (where there are labels) print and store AP.

    Returns:
        'Car 3D moderate' and so on -> AP40 [%]; Car first if it is evaluated. Empty for the test split.
    """
    settings = DecodeSettings(
        CLASS_NAMES,
        config.dataset.resolution,
        config.tester.threshold,
        MEAN_SIZES if config.dataset.meanshape else None,
        config.tester.map_to_image == "official",
    )
    started = time.perf_counter()
    results = predict(model, inference_loader(dataset, config), settings, config, device)
    seconds = time.perf_counter() - started
    folder = run_dir / "results" / name / dataset.split
    write_results(folder / "data", results)
    speed = len(results) / seconds
    logger.info("%d frames, %.2f pictures/s; detections: %s", len(results), speed, folder / "data")
    if not dataset.has_labels:
        return {}
    classes = config.dataset.writelist
    result = evaluate_kitti(dataset.label_dir, folder / "data", dataset.frame_ids, classes)
    with atomic_write(folder / "ap.json") as file:
        file.write(json.dumps(result.to_json(), indent=1).encode())
    logger.info("%s\nsaved as %s", result.table(), folder / "ap.json")
    return {f"{c} 3D moderate AP40": result.ap(c, "3d") for c in sorted(classes, key=lambda c: c != "Car")}


def find_checkpoint(name: str, run_dir: Path) -> Path:
    """Looks in the run's folder, its checkpoints/, the working directory and the project root, in this order."""
    places = [run_dir / name, run_dir / "checkpoints" / name, Path(name), PROJECT_ROOT / name]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"no checkpoint {name!r}; looked for {', '.join(map(str, places))}")


def list_checkpoints(folder: Path) -> list[Path]:
    """checkpoint_epoch_N.pth of a folder, by N."""
    found = {path: re.fullmatch(r"checkpoint_epoch_(\d+)\.pth", path.name) for path in folder.glob("*.pth")}
    return [path for path, _ in sorted(((p, int(m[1])) for p, m in found.items() if m), key=lambda pair: pair[1])]


def _claim(run_dir: Path, config: Config, overwrite: bool) -> None:
    """Refuse to write over a run that has checkpoints, unless it is resumed or may be deleted."""
    if config.trainer.resume_model or not any((run_dir / "checkpoints").glob("*.pth")):
        return
    if not overwrite:
        raise FileExistsError(
            f"{run_dir} holds the checkpoints of an earlier run. Choose another general.exp_name, go on with "
            "trainer.resume_model, or delete it with --overwrite"
        )
    shutil.rmtree(run_dir)


def _after_training(config: Config, run_dir: Path, final: Path) -> list[Path]:
    """What the training command still has to evaluate: nothing if that was done after the last epoch."""
    if config.tester.mode == "all":
        return _to_evaluate(config, run_dir)
    wanted = run_dir / "checkpoints" / Path(config.tester.checkpoint or final).name
    if not wanted.is_file():
        logger.warning("this run has no %s (tester.checkpoint); its last checkpoint stands in", wanted.name)
        wanted = final
    return [] if wanted == final and config.trainer.eval_frequency else [wanted]


def _to_evaluate(config: Config, run_dir: Path) -> list[Path]:
    if config.tester.mode == "single" and config.tester.checkpoint:
        return [find_checkpoint(config.tester.checkpoint, run_dir)]
    folder = run_dir / (config.tester.checkpoints_dir if config.tester.mode == "all" else "checkpoints")
    found = list_checkpoints(folder)
    if not found:
        raise FileNotFoundError(f"no checkpoint_epoch_N.pth in {folder}; train first, or set tester.checkpoint")
    return found if config.tester.mode == "all" else found[-1:]


if __name__ == "__main__":
    sys.exit(main())
