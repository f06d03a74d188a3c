"""The folder of a run, outputs/<exp_name>/: its checkpoints, and what a new run may do there."""

import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import CLASS_NAMES, PROJECT_ROOT, Config, differences, dump_config, find_file, flatten
from ..config.dataset import MEAN_SIZES
from .checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

LAST = "checkpoint_last.pth"  # written after every epoch, and every ``trainer.save_interval_minutes`` inside one
_EPOCH_NAME = re.compile(r"checkpoint_epoch_(\d+)\.pth")
EVALUATION_KEYS = ("dataset.resolution", "dataset.use_3d_center")
"""keys that an evaluation should share with the training; others than ``require_same_decoding`` demands"""
_MAY_CHANGE = ("general.exp_name", "general.dataroot", "dataset.num_workers", "trainer.", "tester.", "model.pretrained")
"""keys, or beginnings of keys, that may differ when a run is resumed"""
_CHANGES_TRAINING = ("trainer.amp", "trainer.accumulate", "trainer.ema", "trainer.sync_bn")
"""keys among these that change the training, so that a resumed run names them"""


def find_run_config(folder: Path = Path("outputs")) -> Path:
    """The config.yaml of the only run below ``folder``. Raises FileNotFoundError, or ValueError naming several runs."""
    paths = sorted(folder.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    found = [path for path in paths if not re.search(r"\.old\d*$", path.parent.name)]  # moved aside by --overwrite
    if not found:
        raise FileNotFoundError(f"no --config, and no run in {folder.absolute()}")
    if len(found) > 1:
        names = ", ".join(path.parent.name for path in reversed(found))
        raise ValueError(f"no --config, and several runs in {folder}/: {names}; for the newest: --config {found[-1]}")
    return found[0]


def require_own_folder(path: Path, config: Config) -> None:
    """Raise ValueError where ``path`` is the config.yaml of a run's folder, and ``config`` means another folder."""
    run, meant = path.resolve().parent, Path("outputs", config.general.exp_name).resolve()
    if path.name == "config.yaml" and (run / "checkpoints").is_dir() and run != meant:
        advice = f"in {run.parent.parent} add --set general.exp_name={run.name}"
        raise ValueError(f"{path}: its general.exp_name means the folder {meant}; to evaluate {run}, {advice}")


def find_checkpoint(name: str, run_dir: Path, option: str = "--set tester.checkpoint=") -> Path:
    """The checkpoint ``name`` of the run's folder, its checkpoints/, the project root or the working directory.

    ``option`` is named in the hint. Raises FileNotFoundError, or ValueError where the last two places hold two files.
    """
    places = [run_dir / name, run_dir / "checkpoints" / name]
    for place in places:
        if place.is_file():
            return place
    with contextlib.suppress(FileNotFoundError):
        return find_file(name, "checkpoint")
    places += [PROJECT_ROOT / name, Path(name)]
    present = list_checkpoints(run_dir / "checkpoints")
    hint = f"; this run's newest is {present[-1].name}: {option}{present[-1].name}" if present else ""
    raise FileNotFoundError(f"no checkpoint {name!r}; looked for {', '.join(map(str, places))}{hint}")


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint of a run with the most epochs and frames, None where there is no checkpoint.

    Files that cannot be read are skipped with a warning. Raises ValueError where all of them are.
    """
    files = sorted((run_dir / "checkpoints").glob("*.pth"))
    found: list[tuple[int, int, bool, Path]] = []
    for path in files:
        try:
            state = read_checkpoint(path, metadata_only=True)
            frames_done = (state.get("progress") or {}).get("frames_done", 0)
            found.append((int(state["epoch"]), int(frames_done), path.name == LAST, path))
        except (ValueError, OSError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            _warn_skipped(path, error)
    for *_, path in sorted(found, reverse=True):
        try:
            read_checkpoint(path)  # all of it: a damaged tensor must not end the run
            return path
        except (ValueError, OSError) as error:
            _warn_skipped(path, error)
    if files:
        raise ValueError(f"{run_dir}: none of its {len(files)} checkpoints can be read; start again with --overwrite")
    return None


def _warn_skipped(path: Path, error: Exception) -> None:
    logger.warning("checkpoint skipped: %s", error if str(path) in str(error) else f"{path}: {error!r}")


def is_epoch_checkpoint(path: Path) -> bool:
    """Whether it has the name of a checkpoint_epoch_N.pth."""
    return bool(_EPOCH_NAME.fullmatch(path.name))


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoint_epoch_N.pth of a folder, sorted by N."""
    found = {path: _EPOCH_NAME.fullmatch(path.name) for path in folder.glob("*.pth")}
    return [path for path, _ in sorted(((p, int(m[1])) for p, m in found.items() if m), key=lambda pair: pair[1])]


def check_nothing_is_lost(run_dir: Path, resume: Path | None, overwrite: bool) -> None:
    """Raise FileExistsError if training into ``run_dir`` would write over checkpoints, ValueError for bad options."""
    own = run_dir / "checkpoints"
    if resume is not None and overwrite:
        raise ValueError("--overwrite and --resume (or trainer.resume_model) exclude each other")
    if overwrite or not any(own.glob("*.pth")):
        return
    remedies = "continue with --resume, choose another general.exp_name, or move it aside with --overwrite"
    if resume is None or resume.resolve().parent != own.resolve():
        raise FileExistsError(f"{run_dir} holds the checkpoints of an earlier run: {remedies}")
    for later in (own / LAST, *list_checkpoints(own)[-1:]):
        if later.is_file() and later.resolve() != resume.resolve() and _epoch(later) > _epoch(resume):
            raise FileExistsError(f"{run_dir} holds {later.name}, later than {resume.name}: resume from that one")


def warn_of_differences(path: Path, stored: object, config: Config, keys: tuple[str, ...] | None) -> None:
    """Log where ``config`` differs from the configuration that a checkpoint holds; official ones hold none.

    ``keys``: 'section.key' names to compare; None compares all that affect a resumed training.
    """
    if not isinstance(stored, dict):
        return
    changing = _CHANGES_TRAINING + (("trainer.max_epoch",) if config.lr_scheduler.type == "cosine" else ())
    if keys is None:
        keys = tuple(key for key in flatten(config) if key in changing or not key.startswith(_MAY_CHANGE))
    for key, (old, new) in differences(stored, config, keys).items():
        logger.warning("%s was trained with %s: %s; now it is %s", path, key, old, new)


def require_same_decoding(path: Path, stored: object, config: Config) -> None:
    """Raise ValueError where ``config`` would read a checkpoint's outputs as other classes or sizes than it learned.

    ``stored``: the checkpoint's own configuration; official ones hold none.
    """
    section, own = stored.get("dataset") if isinstance(stored, dict) else None, dump_config(config)["dataset"]
    if not isinstance(section, dict):
        return
    new = _decoding_values(own)
    try:
        trained = _decoding_values(section)
    except (TypeError, ValueError, AttributeError):
        raise ValueError(f"{path}: the section 'dataset' of its configuration is damaged") from None
    for key, value in trained.items():
        if value != new[key]:
            raise ValueError(
                f"{path} was trained with dataset.{key} {section.get(key, value)}, the configuration has {own[key]}: "
                "detections would have wrong classes or sizes; use the checkpoint's values"
            )


def _decoding_values(section: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of section dataset that decoding depends on, names in small letters; sizes only with ``meanshape``."""
    names = [str(name).lower() for name in section.get("class_names") or CLASS_NAMES]
    known = {**MEAN_SIZES, **(section.get("mean_sizes") or {})}
    sizes = {str(name).lower(): list(size) for name, size in known.items()}
    meanshape = bool(section.get("meanshape"))
    used = {name: sizes.get(name) for name in names} if meanshape else {}
    return {"class_names": names, "meanshape": meanshape, "mean_sizes": used}


def _epoch(path: Path) -> int:
    try:
        epoch = read_checkpoint(path, metadata_only=True).get("epoch")
    except ValueError:  # damaged: nothing is lost by overwriting it
        return -1
    return epoch if isinstance(epoch, int) else -1
