"""One experiment: train, unless only an evaluation is wanted, evaluate, and write curves and a report."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import CLASS_NAMES, Config, flatten
from ..datasets import build_dataset
from ..datasets.kitti import KITTI
from ..datasets.samples import training_loader
from ..engine.checkpoint import load_model_state, read_checkpoint
from ..engine.distributed import join, leave, lost_contact, own_rank
from ..engine.metrics import add_ap_to_last, read_metrics
from ..engine.network import load_network
from ..engine.optimizer import build_optimizer
from ..engine.run_folder import LAST, check_nothing_is_lost, find_checkpoint, require_same_decoding, warn_of_differences
from ..engine.trainer import Trainer
from ..losses import Criterion
from ..models import build_model
from ..ops.heads import OBJECT_HEADS
from ..ops.text import counted
from ..preparation.census import take_census
from ..system.commands import setup_logging
from ..system.environment import log_versions, record_start
from ..system.files import remove_leftovers, write_file
from ..system.interruption import Interrupted, Interruption
from ..system.lock import lock
from ..visualization.curves import metric_panels
from ..visualization.panels import render_panels
from .checkpoints import (
    find_checkpoints_to_evaluate,
    find_resume_checkpoint,
    find_unevaluated_checkpoints,
    results_name,
)
from .evaluation import Evaluator, write_config
from .report import report_after_training

logger = logging.getLogger(__name__)


def run_experiment(
    config: Config, evaluate_only: bool, overwrite: bool, resume: str | None, interruption: Interruption
) -> None:
    """Run one experiment in outputs/<exp_name>/, or this rank's part of it.

    Args:
        evaluate_only: evaluate checkpoints without training.
        overwrite: move an earlier run of the same name aside and start again.
        resume: a checkpoint's path, ``checkpoints.NEWEST``, or None.

    Raises:
        FileNotFoundError, ValueError: for bad input, before anything is written.
        ConnectionError: another rank has ended. FloatingPointError: a loss is not finite. Interrupted: after a signal.
    """
    run_dir = Path("outputs") / config.general.exp_name
    setup_logging(None, logging.INFO if own_rank() == 0 else logging.ERROR)
    check_options(evaluate_only, overwrite, resume)
    torch.manual_seed(config.general.random_seed)  # Python's and numpy's global generators are not used
    ranks, device = join(config.trainer.gpu_ids)
    with ExitStack() as cleanup:
        cleanup.callback(leave)
        try:
            dataset = build_dataset(config, config.tester.split)
            count = counted(len(dataset), "frame")
            logger.info("evaluation split %s: %s below %s", dataset.split, count, dataset.data_dir)
            warn_of_absent_classes(config, dataset)
            evaluator = Evaluator(config, dataset, run_dir, device, ranks)
            if evaluate_only:
                evaluate_checkpoints(evaluator)
                return
            if ranks.is_main:  # before looking for checkpoints: another process may be about to end
                cleanup.enter_context(lock(run_dir))
            ranks.barrier()
            trainer = build_trainer(evaluator, interruption, overwrite, resume)
            ranks.barrier()  # every rank has read the folder before the main rank changes it
            if ranks.is_main:
                prepare_run_folder(config, run_dir, overwrite, cleanup)
            train_and_evaluate(trainer, evaluator)
        except Interrupted as interrupted:
            if evaluate_only or not (run_dir / "checkpoints" / LAST).is_file():
                raise
            advice = interrupted.args[0] or "continue with the same command and --resume"
            raise Interrupted(interrupted.signum, f"{advice}, without --overwrite" if overwrite else advice) from None
        except RuntimeError as error:
            if ranks.size == 1 or not lost_contact(error):
                raise
            raise ConnectionError(
                f"rank {ranks.rank} of {ranks.size} lost contact with another one; continue with --resume"
            ) from error


def check_options(evaluate_only: bool, overwrite: bool, resume: str | None) -> None:
    """Raise ValueError for options that do not go together."""
    if resume == "":
        raise ValueError("--resume: the path is empty; leave it out for the run's newest checkpoint")
    if evaluate_only and (resume or overwrite):
        raise ValueError("-e trains nothing; --resume and --overwrite do not go with it")


def check_inputs(config: Config, evaluate_only: bool, overwrite: bool, resume: str | None) -> None:
    """Look for the data, checkpoints and weights of a run, and write nothing.

    So an error appears once, before several ranks are started. Raises as :func:`run_experiment`.
    """
    setup_logging(None, logging.ERROR)
    check_options(evaluate_only, overwrite, resume)
    run_dir = Path("outputs") / config.general.exp_name
    build_dataset(config, config.tester.split)
    if evaluate_only:
        find_checkpoints_to_evaluate(config, run_dir)
        return
    build_dataset(config, config.dataset.train_split, training=True)
    with lock(run_dir):  # another process may be training there
        checkpoint = find_resume_checkpoint(config, run_dir, resume)
        check_nothing_is_lost(run_dir, checkpoint, overwrite)
        build_initial_model(config, run_dir, checkpoint)


def warn_of_absent_classes(config: Config, dataset: KITTI) -> None:
    """Log the classes of the writelist that no label of the evaluation split has."""
    labelled = {obj.type for _, _, objects in dataset.labelled_images() for obj in objects}
    absent = [name for name in config.dataset.writelist if dataset.has_labels and name not in labelled]
    if absent:
        names, split = ", ".join(absent), dataset.split
        logger.warning("split %s has no label of %s (dataset.writelist): no AP can be measured", split, names)


def build_trainer(
    evaluator: Evaluator, interruption: Interruption, overwrite: bool, resume_from: str | None
) -> Trainer:
    """Build data, model, optimizer and losses, and load the checkpoint to start from. Writes nothing."""
    config, run_dir, device, ranks = evaluator.config, evaluator.run_dir, evaluator.device, evaluator.ranks
    resume = find_resume_checkpoint(config, run_dir, resume_from)
    check_nothing_is_lost(run_dir, resume, overwrite)
    frames = build_dataset(config, config.dataset.train_split, training=True)
    census = take_census(frames.split, frames.labelled_images(), config.dataset)
    census.require_objects([error for error in frames.annotations if isinstance(error, Exception)])
    schedule, epochs = config.lr_scheduler, config.trainer.max_epoch
    if schedule.warmup and schedule.warmup_epochs >= epochs:
        text = "the warm-up (lr_scheduler.warmup_epochs: %d) takes all of %s; optimizer.lr is never reached"
        logger.warning(text, schedule.warmup_epochs, counted(epochs, "epoch"))
    model = build_initial_model(config, run_dir, resume)
    optimizer = build_optimizer(model, config.optimizer, fused=device.type == "cuda")
    share = -(-config.dataset.batch_size // ranks.size)
    criterion = Criterion(config.general, config.losses, ranks.all_reduce_sum, partial(ranks.gather_rows, share=share))
    loader = training_loader(frames, config, ranks.rank, ranks.size)
    focal_net = frames.median_focal_net(config.dataset.resolution[0])
    trainer = Trainer(
        model, criterion, optimizer, loader, config, run_dir, device, evaluator, ranks, interruption, focal_net
    )
    if resume:
        trainer.resume(resume)
    logger.info("training split %s: %s; this run: %s", frames.split, counted(len(frames), "frame"), run_dir)
    level = logging.WARNING if census.loses_many() else logging.INFO
    logger.log(level, "labels of split %s: %s", frames.split, census.summary())
    return trainer


def build_initial_model(config: Config, run_dir: Path, resume: Path | None) -> nn.Module:
    """The model with its initial weights: ImageNet's, those of trainer.pretrain_model, or random ones."""
    from_imagenet = not resume and not config.trainer.pretrain_model
    model = build_model(config, config.model.pretrained if from_imagenet else False)
    if resume:
        stored = read_checkpoint(resume).get("config")
        require_same_decoding(resume, stored, config)
        warn_of_differences(resume, stored, config, None)
    elif config.trainer.pretrain_model:
        path = find_checkpoint(config.trainer.pretrain_model, run_dir)
        load_pretrained(model, path, config.dataset.class_names)
    return model


def load_pretrained(model: nn.Module, path: Path, class_names: Sequence[str]) -> None:
    """Load the weights of a checkpoint; where it has other classes, all but the heatmap's last layer, and where it
    lacks an object head of this model, all but that head.

    Classes that a checkpoint does not name are ``CLASS_NAMES`` if they are three, as in official ones, else those of
    this run if their number is the same. Raises ValueError as ``load_model_state``.
    """
    checkpoint = read_checkpoint(path)
    state = {str(name).removeprefix("module."): value for name, value in checkpoint["model_state"].items()}
    bias, stored = state.get("heatmap.2.bias"), checkpoint.get("config")
    channels = len(bias) if isinstance(bias, Tensor) and bias.ndim else 0
    named = flatten(stored).get("dataset.class_names") if isinstance(stored, dict) else None
    guess = next((names for names in (CLASS_NAMES, class_names) if len(names) == channels), ())
    trained = [str(name) for name in named or guess]
    if channels and [name.lower() for name in trained] != [name.lower() for name in class_names]:
        state |= {name: value for name, value in model.state_dict().items() if name.startswith("heatmap.2.")}
        logger.warning(
            "%s has a heatmap of %d classes (%s), this run has %s: the heatmap's last layer starts anew, all other "
            "weights are taken",
            *(path, channels, ", ".join(trained) or "unknown", ", ".join(class_names)),
        )
    new = [head for head in OBJECT_HEADS if not any(name.startswith(f"{head}.") for name in state)]
    if len(new) < len(OBJECT_HEADS):
        state |= {name: value for name, value in model.state_dict().items() if name.partition(".")[0] in new}
    load_model_state(model, state, path)
    if new:
        logger.warning("%s: weights that it does not have start anew: head %s", path, ", head ".join(new))


def prepare_run_folder(config: Config, run_dir: Path, overwrite: bool, cleanup: ExitStack) -> None:
    """Move an earlier run aside if ``overwrite``, and begin the log. ``run_dir`` is locked already."""
    if overwrite and [entry.name for entry in run_dir.iterdir()] != ["lock"]:
        names = (f"{run_dir.name}.old{number if number > 1 else ''}" for number in count(1))
        aside = next(place for place in map(run_dir.with_name, names) if not place.exists())
        run_dir.rename(aside)
        cleanup.enter_context(lock(run_dir))
        logger.info("the earlier run is now %s", aside)
    remove_leftovers(run_dir)
    setup_logging(run_dir / "train.log")
    log_versions()
    record_start(run_dir / "environment.json")
    write_config(run_dir / "config.yaml", config)


def train_and_evaluate(trainer: Trainer, evaluator: Evaluator) -> None:
    """Train, evaluate the checkpoints that are not yet evaluated, write curves and report."""
    config, run_dir = evaluator.config, evaluator.run_dir
    final = trainer.fit()
    name = results_name(final, run_dir)
    for path in find_unevaluated_checkpoints(config, run_dir, final):
        name = results_name(path, run_dir)
        if path == final:
            ap = evaluate(evaluator, path, trainer.synchronized_model())
            if ap:
                add_ap_to_last(run_dir / "metrics.jsonl", ap)
        else:
            evaluate(evaluator, path, load_network(path, build_model, config).model)
    if evaluator.ranks.is_main:
        if len(evaluator.figures) > 1 and config.tester.mode == "all":
            evaluator.summarize_checkpoints()
        records = read_metrics(run_dir / "metrics.jsonl")
        if records:
            write_file(run_dir / "curves.png", render_panels(metric_panels({config.general.exp_name: records})))
            logger.info("training curves: %s", run_dir / "curves.png")
        if config.trainer.report:
            report_after_training(run_dir, evaluator.folder(name), evaluator.dataset, evaluator.figures.get(name))


def evaluate_checkpoints(evaluator: Evaluator) -> None:
    """Evaluate the checkpoints that section tester of the configuration names."""
    checkpoints = find_checkpoints_to_evaluate(evaluator.config, evaluator.run_dir)
    if evaluator.ranks.is_main:
        setup_logging(evaluator.run_dir / "evaluate.log")
        log_versions()
    for path in checkpoints:
        evaluate(evaluator, path, load_network(path, build_model, evaluator.config).model)
    if len(evaluator.figures) > 1:
        evaluator.summarize_checkpoints()


def evaluate(evaluator: Evaluator, path: Path, model: nn.Module) -> dict[str, float]:
    """Evaluate ``model``, the content of the checkpoint ``path``; returns AP by name."""
    logger.info("evaluating %s", path)
    return evaluator(model, results_name(path, evaluator.run_dir))
