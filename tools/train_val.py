#!/usr/bin/env python3
"""Train a detector from one YAML file, then evaluate it; with -e, evaluate only.

Several GPUs: list them in trainer.gpu_ids, or run `torchrun --nproc_per_node=N tools/train_val.py --config x.yaml`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import yaml
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.config import Config, dump_config, find_dataroot, load_config
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import folder_for
from lib.datasets.samples import inference_loader, training_loader
from lib.engine.checkpoint import load_model_state, read_checkpoint
from lib.engine.device import existing_gpus, seed_torch
from lib.engine.distributed import Ranks, join, launch, leave, lost_contact, own_rank, report, started_by_torchrun
from lib.engine.environment import log_versions
from lib.engine.inference import decode_settings, predict, write_results
from lib.engine.interruption import Interrupted, Interruption
from lib.engine.metrics import add_ap_to_last, read_metrics
from lib.engine.optim import build_optimizer
from lib.engine.run_folder import (
    LAST,
    find_checkpoint,
    list_checkpoints,
    newest_checkpoint,
    refuse_to_lose,
    warn_of_differences,
)
from lib.engine.run_lock import lock
from lib.engine.runtime import run_command, setup_logging
from lib.engine.step import Parts
from lib.engine.trainer import begin, train
from lib.evaluation import CLASSES, evaluate_folder
from lib.files import atomic_write, remove_leftovers, write_file
from lib.losses import Criterion
from lib.models import build_model
from lib.models.folding import fold_batch_norm
from lib.models.pretrained import load_imagenet_weights
from lib.prediction.network import read_network
from lib.structures import Object3d
from lib.visualization.curves import plot_metrics
from tools.make_report import report_after_training
from tools.visualize import draw_some

logger = logging.getLogger("lib.tools.train_val")
NEWEST = "newest"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 for a run that failed, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Everything goes to outputs/<exp_name>/ below the working directory: config.yaml, train.log, "
        "metrics.jsonl, curves.png, report.html (all on one page), checkpoints/, results/<checkpoint>/<split>/ (KITTI "
        "text files, ap.json, depth_error.json, some pictures).",
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
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew; an earlier run of this name is moved to <exp_name>.old"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="PATH",
        help="go on with an interrupted run: from its newest checkpoint that can be read (from the beginning where "
        "there is none), or from PATH",
    )
    args = parser.parse_args(argv)
    interruption = Interruption(announce=own_rank() == 0)

    def body() -> int:
        config = load_config(args.config, args.set)
        processes = len(existing_gpus(config.trainer.gpu_ids))
        if processes > 1 and not started_by_torchrun():
            return launch(processes, Path(__file__), sys.argv[1:] if argv is None else argv)
        return run(config, args.evaluate_only, args.overwrite, args.resume, interruption)

    return run_command(body, interruption, report)


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


def run(
    config: Config, evaluate_only: bool, overwrite: bool, resume: str | None, interruption: Interruption
) -> int:
    """The whole job of one experiment, in one of its processes. Raises what ``run_command`` turns into one line."""
    run_dir = Path("outputs") / config.general.exp_name
    first = own_rank() == 0
    level = logging.INFO if first else logging.ERROR
    setup_logging(None, level)
    if resume == "":
        raise ValueError("--resume: the path is empty; leave it out for the run's newest checkpoint")
    if evaluate_only and (resume or overwrite):
        raise ValueError("-e trains nothing; --resume and --overwrite do not go with it")
    seed_torch(config.general.random_seed)
    ranks, device = join(config.trainer.gpu_ids)
    until_the_end = ExitStack()
    try:
        dataset = KITTI(find_dataroot(config), config.tester.split)
        logger.info("evaluation split %s: %d frames below %s", config.tester.split, len(dataset), dataset.data_dir)
        _require_labels_of_own_classes(config, dataset)
        job = Job(config, run_dir, dataset, device, ranks, interruption, until_the_end)
        train_and_evaluate(job, evaluate_only, overwrite, resume)
    except Interrupted as interrupted:
        if interrupted.args[0] or not (run_dir / "checkpoints" / LAST).is_file():
            raise
        raise Interrupted(interrupted.signum, "the same command with --resume goes on") from None
    except RuntimeError as error:
        if ranks.size == 1 or not lost_contact(error):
            raise
        raise ConnectionError(
            f"rank {ranks.rank} of {ranks.size} lost contact with another one; go on with --resume"
        ) from error
    finally:
        until_the_end.close()
        leave()
    return 0


def train_and_evaluate(job: Job, evaluate_only: bool, overwrite: bool, resume: str | None) -> None:
    """Train, unless told not to, and evaluate what is to be evaluated."""
    config, run_dir = job.config, job.run_dir
    final = None
    if evaluate_only:
        checkpoints = _to_evaluate(config, run_dir)
        if job.ranks.first:
            setup_logging(run_dir / "evaluate.log")
            log_versions()
    else:
        final = run_training(job, overwrite, resume)
        checkpoints = _after_training(config, run_dir, final)
    for path in checkpoints:
        model = read_network(path, config).model
        logger.info("evaluating %s", path)
        ap = evaluate_model(job, model, _results_name(path, run_dir))
        if ap and path == final:
            add_ap_to_last(run_dir / "metrics.jsonl", ap)
    if final and job.ranks.first:
        records = read_metrics(run_dir / "metrics.jsonl")
        plot = plot_metrics({config.general.exp_name: records}, run_dir / "curves.png")
        logger.info("training curves: %s", plot)
        if config.trainer.report:
            name = _results_name(checkpoints[-1] if checkpoints else final, run_dir)
            report_after_training(run_dir, run_dir / "results" / name / job.evaluation_set.split, job.evaluation_set)


def run_training(job: Job, overwrite: bool, resume_from: str | None) -> Path:
    """Check and build everything, only then touch the run's folder, and train. Returns the last checkpoint."""
    config, run_dir, ranks = job.config, job.run_dir, job.ranks
    resume = _to_resume(config, run_dir, resume_from)
    refuse_to_lose(run_dir, resume, overwrite)
    depth_folder = folder_for(config.dataset.writelist) if config.general.obj_depth else None
    skip = config.dataset.on_bad_frame == "skip"
    frames = KITTI(
        find_dataroot(config),
        config.dataset.train_split,
        depth_folder,
        paint_obj_depth=config.dataset.obj_depth_source == "labels",
        cache=config.dataset.cache == "ram",
        allow_bad_frames=skip,
    )
    model = build_model(config)
    if resume:
        warn_of_differences(resume, read_checkpoint(resume).get("config"), config, None)
    elif config.trainer.pretrain_model:
        path = find_checkpoint(config.trainer.pretrain_model, run_dir)
        load_model_state(model, read_checkpoint(path)["model_state"], path)
    elif config.model.pretrained:
        load_imagenet_weights(model.backbone, config.model.backbone, config.model.pretrained)
    optimizer = build_optimizer(model, config.optimizer, fused=job.device.type == "cuda")
    share = -(-config.dataset.batch_size // ranks.size)
    criterion = Criterion(config.general, ranks.total, partial(ranks.gather, share=share))
    loader = training_loader(frames, config, ranks.rank, ranks.size)
    focal_net = frames.median_focal_net(config.dataset.resolution[0])
    parts = Parts(model, criterion, optimizer, loader, job.device, config, run_dir, ranks, job.interruption, focal_net)
    progress = begin(parts, resume)

    ranks.wait()  # all have looked at the folder
    if ranks.first:
        _prepare_folder(job, overwrite)
    logger.info("training split %s: %d frames; this run: %s", frames.split, len(frames), run_dir)
    return train(parts, progress, partial(evaluate_model, job))


def _to_resume(config: Config, run_dir: Path, resume_from: str | None) -> Path | None:
    if resume_from and config.trainer.resume_model:
        raise ValueError("--resume and trainer.resume_model exclude each other")
    if resume_from == NEWEST:
        newest = newest_checkpoint(run_dir)
        if newest is None:
            logger.info("--resume: %s has no checkpoint yet; starting from the beginning", run_dir)
        return newest
    name = resume_from or config.trainer.resume_model
    return find_checkpoint(name, run_dir, "--resume ") if name else None


def _prepare_folder(job: Job, overwrite: bool) -> None:
    run_dir = job.run_dir
    if overwrite and run_dir.exists():
        aside = run_dir.with_name(run_dir.name + ".old")
        with lock(run_dir):
            if aside.exists():
                shutil.rmtree(aside)
            run_dir.rename(aside)
        logger.info("the earlier run is now %s", aside)
    job.until_the_end.enter_context(lock(run_dir))
    remove_leftovers(run_dir)
    setup_logging(run_dir / "train.log")
    log_versions()
    _write_config(run_dir / "config.yaml", job.config)


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
    _write_config(folder / "config.yaml", config)
    speed = len(results) / seconds
    logger.info("%d frames, %.2f pictures/s; detections: %s", len(results), speed, folder / "data")
    if not dataset.has_labels:
        draw_pictures(dataset, dict(results), config.tester.pictures, folder / "pictures")
        return {}
    ap = write_figures(config, dataset, folder)
    draw_pictures(dataset, dict(results), config.tester.pictures, folder / "pictures")
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


def draw_pictures(dataset: KITTI, detections: dict[str, list[Object3d]], count: int, folder: Path) -> None:
    """``tester.pictures``. What goes wrong is a warning: pictures must not end a training that took days."""
    try:
        draw_some(dataset, detections, count, folder)
    except Exception as error:  # whatever it is
        logger.warning("no pictures in %s: %s", folder, error)


def _require_labels_of_own_classes(config: Config, dataset: KITTI) -> None:
    """Now, and not when the first epoch is done and cannot be evaluated."""
    labelled = {obj.type for texts in dataset.texts if not isinstance(texts, Exception) for obj in texts[1]}
    for name in config.dataset.writelist if dataset.has_labels else ():
        if name not in CLASSES and name not in labelled:
            raise ValueError(f"dataset.writelist: no label of split {dataset.split!r} is of the class {name!r}")


def _write_config(path: Path, config: Config) -> None:
    with atomic_write(path) as file:
        file.write(yaml.safe_dump(dump_config(config), sort_keys=False).encode())


def _results_name(path: Path, run_dir: Path) -> str:
    """Folder below results/: a checkpoint from elsewhere must not take the place of the run's own."""
    own = path.resolve().parent == (run_dir / "checkpoints").resolve()
    return path.stem if own else f"{path.resolve().parent.name}_{path.stem}"


def _after_training(config: Config, run_dir: Path, final: Path) -> list[Path]:
    """What the training command still has to evaluate: nothing if that was done after the last epoch."""
    if config.tester.mode == "all":
        return _to_evaluate(config, run_dir)
    wanted = Path(config.tester.checkpoint or final.name).name
    ours = {path.name: path for path in [*list_checkpoints(final.parent), final.parent / "checkpoint_best.pth"]}
    if wanted not in ours or not ours[wanted].is_file():
        logger.warning("this run has no %s (tester.checkpoint); its last checkpoint stands in", wanted)
        wanted = final.name
    return [] if wanted == final.name and config.trainer.eval_frequency else [ours[wanted]]


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
