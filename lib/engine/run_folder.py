"""outputs/<exp_name>/: which checkpoints it holds, and whether a run may write there."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

from ..config import PROJECT_ROOT, Config, dump_config, find_file, flatten
from .checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

LAST = "checkpoint_last.pth"
"""where the run stands: written every epoch, and now and then inside long ones"""
EVALUATION_KEYS = ("dataset.resolution", "dataset.meanshape", "dataset.use_3d_center", "tester.map_to_image")
"""what a checkpoint must be evaluated with as it was trained with"""
_FREE = ("general.exp_name", "general.dataroot", "dataset.num_workers", "trainer.", "tester.", "model.pretrained")
"""what may change on resuming without another word"""


def find_checkpoint(name: str, run_dir: Path, option: str = "--set tester.checkpoint=") -> Path:
    """Looks in the run's folder and its checkpoints/, then in the project root and the working directory.

    Raises FileNotFoundError, or ValueError where there are two different ones in the last two places.
    """
    places = [run_dir / name, run_dir / "checkpoints" / name]
    for place in places:
        if place.is_file():
            return place
    with contextlib.suppress(FileNotFoundError):
        return find_file(name, "checkpoint")
    places += [PROJECT_ROOT / name, Path(name)]
    there = list_checkpoints(run_dir / "checkpoints")
    hint = f"; this run's newest is {there[-1].name}: {option}{there[-1].name}" if there else ""
    raise FileNotFoundError(f"no checkpoint {name!r}; looked for {', '.join(map(str, places))}{hint}")


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint of a run that has come furthest, or None where there is none at all.

    Files that cannot be read are passed over with a warning. Raises ValueError where no file is left.
    """
    files = sorted((run_dir / "checkpoints").glob("*.pth"))
    found: list[tuple[int, int, bool, Path]] = []
    for path in files:
        try:
            state = read_checkpoint(path, glance=True)
            frames_done = (state.get("progress") or {}).get("frames_done", 0)
            found.append((int(state["epoch"]), int(frames_done), path.name == LAST, path))
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            logger.warning("passed over: %s", error if str(path) in str(error) else f"{path}: {error!r}")
    for *_, path in sorted(found, reverse=True):
        try:
            read_checkpoint(path)  # all of it: what a glance does not see must not end the run
            return path
        except (ValueError, OSError) as error:
            logger.warning("passed over: %s", error if str(path) in str(error) else f"{path}: {error!r}")
    if files:
        raise ValueError(f"{run_dir}: none of its {len(files)} checkpoints can be read; start anew with --overwrite")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """checkpoint_epoch_N.pth of a folder, by N."""
    found = {path: re.fullmatch(r"checkpoint_epoch_(\d+)\.pth", path.name) for path in folder.glob("*.pth")}
    return [path for path, _ in sorted(((p, int(m[1])) for p, m in found.items() if m), key=lambda pair: pair[1])]


def refuse_to_lose(run_dir: Path, resume: Path | None, overwrite: bool) -> None:
    """Raise FileExistsError if training into ``run_dir`` would write over checkpoints, ValueError for bad options."""
    own = run_dir / "checkpoints"
    if resume is not None and overwrite:
        raise ValueError("--overwrite and --resume (or trainer.resume_model) exclude each other")
    if overwrite or not any(own.glob("*.pth")):
        return
    cures = "go on with --resume, choose another general.exp_name, or move it aside with --overwrite"
    if resume is None or resume.resolve().parent != own.resolve():
        raise FileExistsError(f"{run_dir} holds the checkpoints of an earlier run: {cures}")
    for later in (own / LAST, *list_checkpoints(own)[-1:]):
        if later.is_file() and later.resolve() != resume.resolve() and _epoch(later) > _epoch(resume):
            raise FileExistsError(f"{run_dir} holds {later.name}, later than {resume.name}: resume from that one")


def warn_of_differences(path: Path, stored: object, config: Config, keys: tuple[str, ...] | None) -> None:
    """Log where ``config`` differs from what a checkpoint was trained with; official checkpoints do not say.

    ``keys``: 'section.key' names to compare; None compares all that bear on a resumed training.
    """
    if not isinstance(stored, dict):
        return
    old, new = flatten(stored), flatten(dump_config(config))
    compared = keys if keys is not None else tuple(k for k in new if not k.startswith(_FREE))
    for key in compared:
        if key in old and old[key] != new[key]:
            logger.warning("%s was trained with %s: %s; now it is %s", path, key, old[key], new[key])


def _epoch(path: Path) -> int:
    try:
        epoch = read_checkpoint(path, glance=True).get("epoch")
    except ValueError:  # broken: there is nothing to lose
        return -1
    return epoch if isinstance(epoch, int) else -1
