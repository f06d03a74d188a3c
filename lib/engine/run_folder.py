"""outputs/<exp_name>/: which checkpoints it holds, and whether a run may write there."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from lib.config import PROJECT_ROOT, Config, dump_config
from lib.engine.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

EVALUATION_KEYS = ("dataset.resolution", "dataset.meanshape", "dataset.use_3d_center", "tester.map_to_image")
"""what a checkpoint must be evaluated with as it was trained with"""
_FREE = ("general.exp_name", "general.dataroot", "dataset.num_workers", "trainer.", "tester.", "model.pretrained")
"""what may change on resuming without another word"""


def find_checkpoint(name: str, run_dir: Path) -> Path:
    """Looks in the run's folder, its checkpoints/, the project root and the working directory, in this order."""
    places = [run_dir / name, run_dir / "checkpoints" / name, PROJECT_ROOT / name, Path(name)]
    for place in places:
        if place.is_file():
            return place
    there = list_checkpoints(run_dir / "checkpoints")
    hint = f"; this run's newest is {there[-1].name}: --set tester.checkpoint={there[-1].name}" if there else ""
    raise FileNotFoundError(f"no checkpoint {name!r}; looked for {', '.join(map(str, places))}{hint}")


def list_checkpoints(folder: Path) -> list[Path]:
    """checkpoint_epoch_N.pth of a folder, by N."""
    found = {path: re.fullmatch(r"checkpoint_epoch_(\d+)\.pth", path.name) for path in folder.glob("*.pth")}
    return [path for path, _ in sorted(((p, int(m[1])) for p, m in found.items() if m), key=lambda pair: pair[1])]


def refuse_to_lose(run_dir: Path, resume: Path | None, overwrite: bool) -> None:
    """Raise FileExistsError if training into ``run_dir`` would write over checkpoints, ValueError for bad options."""
    own = run_dir / "checkpoints"
    if resume is not None and overwrite:
        raise ValueError("--overwrite and trainer.resume_model exclude each other")
    if overwrite or not any(own.glob("*.pth")):
        return
    cures = "choose another general.exp_name, go on with trainer.resume_model, or delete it with --overwrite"
    if resume is None or resume.resolve().parent != own.resolve():
        raise FileExistsError(f"{run_dir} holds the checkpoints of an earlier run: {cures}")
    later = list_checkpoints(own)[-1:]
    if later and later[0].resolve() != resume.resolve() and _epoch(later[0]) > _epoch(resume):
        raise FileExistsError(f"{run_dir} holds {later[0].name}, later than {resume.name}: resume from that one")


def warn_of_differences(path: Path, stored: object, config: Config, keys: tuple[str, ...] | None) -> None:
    """Log where ``config`` differs from what a checkpoint was trained with; official checkpoints do not say.

    ``keys``: 'section.key' names to compare; None compares all that bear on a resumed training.
    """
    if not isinstance(stored, dict):
        return
    old, new = _flat(stored), _flat(dump_config(config))
    compared = keys if keys is not None else tuple(k for k in new if not k.startswith(_FREE))
    for key in compared:
        if key in old and old[key] != new[key]:
            logger.warning("%s was trained with %s: %s; now it is %s", path, key, old[key], new[key])


def _epoch(path: Path) -> int:
    epoch = read_checkpoint(path).get("epoch")
    return epoch if isinstance(epoch, int) else -1


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    return {f"{s}.{k}": v for s, section in nested.items() if isinstance(section, dict) for k, v in section.items()}
