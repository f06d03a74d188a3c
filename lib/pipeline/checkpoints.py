"""Which checkpoint a run is resumed from, and which checkpoints are evaluated."""

import logging
from pathlib import Path

from ..config import Config
from ..engine.run_folder import find_checkpoint, is_epoch_checkpoint, list_checkpoints, newest_checkpoint

logger = logging.getLogger(__name__)
NEWEST = "newest"
_INSTEAD = "this run has no %s (tester.checkpoint); its last checkpoint, %s, is evaluated instead"


def find_resume_checkpoint(config: Config, run_dir: Path, resume_from: str | None) -> Path | None:
    """The checkpoint of --resume or trainer.resume_model; None to start from the beginning.

    Raises ValueError where both are given, FileNotFoundError for a checkpoint that is not there.
    """
    if resume_from and config.trainer.resume_model:
        raise ValueError("--resume and trainer.resume_model exclude each other")
    if resume_from == NEWEST:
        newest = newest_checkpoint(run_dir)
        if newest is None:
            logger.info("--resume: %s has no checkpoint yet; starting from the beginning", run_dir)
        return newest
    name = resume_from or config.trainer.resume_model
    return find_checkpoint(name, run_dir, "--resume ") if name else None


def results_name(path: Path, run_dir: Path) -> str:
    """Name of a checkpoint's folder below results/; one from another run's folder gets that folder's name in front."""
    folder = path.resolve().parent
    if folder == (run_dir / "checkpoints").resolve():
        return path.stem
    return f"{(folder.parent if folder.name == 'checkpoints' else folder).name}_{path.stem}"


def find_unevaluated_checkpoints(config: Config, run_dir: Path, final: Path) -> list[Path]:
    """Checkpoints that the training command still has to evaluate; none if the last epoch was evaluated already."""
    if config.tester.mode == "all":
        return find_checkpoints_to_evaluate(config, run_dir)
    wanted = Path(config.tester.checkpoint or final.name).name
    own = {path.name: path for path in [*list_checkpoints(final.parent), final.parent / "checkpoint_best.pth"]}
    missing = wanted not in own or not own[wanted].is_file()
    results = run_dir / "results" / results_name(final, run_dir) / config.tester.split / "data"
    if (missing or wanted == final.name) and config.trainer.eval_frequency and results.is_dir():
        return []
    if missing:
        logger.warning(_INSTEAD, wanted, final.name)
    return [final if missing else own[wanted]]


def find_checkpoints_to_evaluate(config: Config, run_dir: Path) -> list[Path]:
    """Checkpoints that -e evaluates, by section tester of the config. Raises FileNotFoundError where there are none.

    Where a run has checkpoints, but not the checkpoint_epoch_N.pth of the config, as after a training with fewer
    epochs, its last one is evaluated, as after the training.
    """
    if config.tester.mode == "single" and config.tester.checkpoint:
        try:
            return [find_checkpoint(config.tester.checkpoint, run_dir)]
        except FileNotFoundError:
            own, name = list_checkpoints(run_dir / "checkpoints"), Path(config.tester.checkpoint)
            if not own or name.parent.name not in ("", "checkpoints") or not is_epoch_checkpoint(name):
                raise
            logger.warning(_INSTEAD, name.name, own[-1].name)
            return own[-1:]
    folder = run_dir / (config.tester.checkpoints_dir if config.tester.mode == "all" else "checkpoints")
    found = list_checkpoints(folder)
    newest = newest_checkpoint(run_dir) if not found and config.tester.mode == "single" else None
    if newest:  # the run was interrupted
        return [newest]
    if not found:
        raise FileNotFoundError(f"no checkpoint_epoch_N.pth in {folder}; train first, or set tester.checkpoint")
    return found if config.tester.mode == "all" else found[-1:]
