#!/usr/bin/env python3
"""Train a detector from one YAML file, then evaluate it; with -e, evaluate only.

Several GPUs: list them in trainer.gpu_ids, or run `torchrun --nproc_per_node=N tools/train_val.py --config x.yaml`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.config import Config, find_dataroot, load_config
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import folder_for
from lib.datasets.samples import training_loader
from lib.engine.checkpoint import load_model_state, read_checkpoint
from lib.engine.device import existing_gpus, seed_torch
from lib.engine.distributed import join, launch, leave, lost_contact, own_rank, report, started_by_torchrun
from lib.engine.metrics import add_ap_to_last, read_metrics
from lib.engine.network import load_network
from lib.engine.optimizer import build_optimizer
from lib.engine.run_folder import LAST, find_checkpoint, refuse_to_lose, warn_of_differences
from lib.engine.step import Parts
from lib.engine.trainer import begin, train
from lib.evaluation import CLASSES
from lib.losses import Criterion
from lib.models import build_model
from lib.models.pretrained import load_imagenet_weights
from lib.pipeline.checkpoints import NEWEST, left_to_evaluate, results_name, to_evaluate, to_resume
from lib.pipeline.evaluation import Job, evaluate_model, write_config
from lib.system.commands import run_command, setup_logging
from lib.system.environment import log_versions
from lib.system.files import remove_leftovers
from lib.system.interruption import Interrupted, Interruption
from lib.system.lock import lock
from lib.visualization.curves import plot_metrics
from tools.make_report import report_after_training

logger = logging.getLogger("lib.tools.train_val")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 for a run that failed, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Everything goes to outputs/<exp_name>/ below the working directory: config.yaml, train.log, "
        "metrics.jsonl, curves.png, report.html (all on one page), checkpoints/, results/<checkpoint>/<split>/ (KITTI "
        "text files, ap.json, depth_error.json, some images).",
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
        "--overwrite",
        action="store_true",
        help="start anew; an earlier run of this name is moved to <exp_name>.old (.old2, ..)",
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


def run(config: Config, evaluate_only: bool, overwrite: bool, resume: str | None, interruption: Interruption) -> int:
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
        if evaluate_only or not (run_dir / "checkpoints" / LAST).is_file():
            raise
        advice = interrupted.args[0] or "the same command with --resume goes on"
        raise Interrupted(interrupted.signum, f"{advice}, without --overwrite" if overwrite else advice) from None
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
        checkpoints = to_evaluate(config, run_dir)
        if job.ranks.first:
            setup_logging(run_dir / "evaluate.log")
            log_versions()
    else:
        final = run_training(job, overwrite, resume)
        checkpoints = left_to_evaluate(config, run_dir, final)
    for path in checkpoints:
        model = load_network(path, build_model, config).model
        logger.info("evaluating %s", path)
        ap = evaluate_model(job, model, results_name(path, run_dir))
        if ap and path == final:
            add_ap_to_last(run_dir / "metrics.jsonl", ap)
    if final and job.ranks.first:
        records = read_metrics(run_dir / "metrics.jsonl")
        if records:
            plot = plot_metrics({config.general.exp_name: records}, run_dir / "curves.png")
            logger.info("training curves: %s", plot)
        if config.trainer.report:
            name = results_name(checkpoints[-1] if checkpoints else final, run_dir)
            report_after_training(run_dir, run_dir / "results" / name / job.evaluation_set.split, job.evaluation_set)


def run_training(job: Job, overwrite: bool, resume_from: str | None) -> Path:
    """Check and build everything, only then touch the run's folder, and train. Returns the last checkpoint."""
    config, run_dir, ranks = job.config, job.run_dir, job.ranks
    resume = to_resume(config, run_dir, resume_from)
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


def _prepare_folder(job: Job, overwrite: bool) -> None:
    run_dir = job.run_dir
    if overwrite and run_dir.exists():
        names = (f"{run_dir.name}.old{number if number > 1 else ''}" for number in count(1))
        with lock(run_dir):
            aside = next(place for place in map(run_dir.with_name, names) if not place.exists())
            run_dir.rename(aside)
        logger.info("the earlier run is now %s", aside)
    job.until_the_end.enter_context(lock(run_dir))
    remove_leftovers(run_dir)
    setup_logging(run_dir / "train.log")
    log_versions()
    write_config(run_dir / "config.yaml", job.config)


def _require_labels_of_own_classes(config: Config, dataset: KITTI) -> None:
    """Now, and not when the first epoch is done and cannot be evaluated."""
    labelled = {obj.type for texts in dataset.texts if not isinstance(texts, Exception) for obj in texts[1]}
    for name in config.dataset.writelist if dataset.has_labels else ():
        if name not in CLASSES and name not in labelled:
            raise ValueError(f"dataset.writelist: no label of split {dataset.split!r} is of the class {name!r}")


if __name__ == "__main__":
    sys.exit(main())
