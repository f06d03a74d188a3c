"""Arms of a comparison: what each changes in an experiment, and the runs that follow from it. Free of torch."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import PROJECT_ROOT, Config, dump_config, find_file, flatten, load_config, read_yaml
from ..engine.metrics import read_metrics

_OURS = {"general.exp_name", "general.random_seed", "tester.mode", "tester.checkpoint", "trainer.resume_model"}
"""keys that neither an arm nor --set may change: runs are named by arm and seed, and judged at their last epoch"""
_FREE = {"dataset.num_workers", "dataset.cache", "trainer.eval_frequency"}
_FREE |= {"trainer.save_frequency", "trainer.save_interval_minutes", "trainer.keep_last"}
_FREE |= {"trainer.report", "tester.images"}
"""keys that bear on nothing that is compared: a run may have been made, or begun, with other values"""


@dataclass(frozen=True)
class PlannedRun:
    """One arm with one seed."""

    arm: str
    changes: tuple[str, ...]
    """what the arm changes: 'section.key=value'"""
    seed: int
    config: Config
    overrides: tuple[str, ...]
    """what --set of train_val.py is given to make ``config`` of the experiment's file"""
    working_dir: Path

    @property
    def name(self) -> str:
        return self.config.general.exp_name

    @property
    def folder(self) -> Path:
        return self.working_dir / "outputs" / self.name

    @property
    def results(self) -> Path:
        """Folder of the last epoch's evaluation."""
        return self.folder / "results" / f"checkpoint_epoch_{self.config.trainer.max_epoch}" / self.config.tester.split

    @property
    def epochs_done(self) -> int:
        records = read_metrics(self.folder / "metrics.jsonl")
        return int(records[-1]["epoch"]) if records else 0

    @property
    def finished(self) -> bool:
        """Whether the last epoch is trained, logged and evaluated."""
        return (self.results / "ap.json").is_file() and self.epochs_done == self.config.trainer.max_epoch

    def differences(self) -> list[str]:
        """'trainer.max_epoch=140 (now 20)': where what is stored was made with another configuration than this.

        Looks at the training's configuration and at that of the last epoch's evaluation. Raises ValueError where one
        cannot be read.
        """
        now, found = _compared(self.config), []
        for folder in (self.folder, self.results):
            path = folder / "config.yaml"
            if path.is_file():
                stored = _compared(load_config(path))
                found += [f"{key}={stored[key]!r} (now {now[key]!r})" for key in now if stored[key] != now[key]]
        return list(dict.fromkeys(found))


def read_arms(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The arms that are asked for, in this order: 'section.key=value' overrides by name.

    Raises FileNotFoundError, or ValueError naming the file, the arm, and what would be accepted.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of arms")
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected a mapping of arms, such as 'baseline: {{general.qi: false}}'")
    arms = {str(name): _overrides(changes, f"{path}: arm {name!r}") for name, changes in content.items()}
    for name in arms:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII):
            raise ValueError(f"{path}: an arm must be called by letters, digits and _ . + -, got {name!r}")
    for k, name in enumerate(names):
        if name not in arms:
            near = difflib.get_close_matches(name, arms, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(arms)}"
            raise ValueError(f"--arms: {path} has no arm {name!r}; {hint}")
        if name in names[:k]:
            raise ValueError(f"--arms: {name!r} is named twice")
    return {name: arms[name] for name in names}


def _overrides(changes: Any, where: str) -> list[str]:
    if changes is None:
        return []
    if not isinstance(changes, dict):
        raise ValueError(f"{where}: expected a mapping such as {{general.qi: false}}, got {changes!r}")
    try:
        return [f"{key}={json.dumps(value)}" for key, value in changes.items()]  # JSON is YAML on one line
    except TypeError:
        raise ValueError(f"{where}: expected numbers, texts, true, false, or lists of them, got {changes!r}") from None


def plan_runs(
    base: Path,
    arms: dict[str, list[str]],
    seeds: Sequence[int],
    overrides: Sequence[str],
    device: Sequence[str],
    out: Path,
) -> list[PlannedRun]:
    """All runs, seed by seed, so that a half-finished comparison has nearly the same seeds of every arm.

    Args:
        overrides: 'section.key=value' for all arms alike.
        device: the same, of what is given by where the runs run.

    Raises:
        FileNotFoundError, ValueError: for what cannot be run, naming arm, key, value and what would be accepted.
    """
    taken = {_key(override) for override in device} | _OURS
    _refuse(taken, overrides, "--set", "the comparison sets this key itself")
    by_arm: dict[str, tuple[Config, tuple[str, ...]]] = {}
    for arm, changes in arms.items():
        _refuse(taken, changes, f"arm {arm!r}", "the comparison sets this key itself")
        _refuse({_key(change) for change in changes}, overrides, "--set", f"arm {arm!r} sets this key")
        own = (*overrides, *changes, *device, "tester.mode=single", "tester.checkpoint=''")
        try:
            own = (*own, *_from_here(load_config(base, own)))
            config = load_config(base, own)
        except ValueError as error:
            raise ValueError(f"arm {arm!r}: {error}") from None
        for other, (same, _) in by_arm.items():
            if same == config:
                raise ValueError(f"arms {other!r} and {arm!r} are the same configuration")
        by_arm[arm] = config, own
    for config, _ in by_arm.values():
        if config.trainer.resume_model:
            raise ValueError(f"{base}: trainer.resume_model must be empty: runs go on from their own checkpoints")
        if config.tester.split == "test":
            raise ValueError(f"{base}: tester.split must have labels, got 'test'")
    runs = []
    for seed in seeds:
        for arm, (config, own) in by_arm.items():
            name = f"{arm}_seed{seed}"
            named = (*own, f"general.exp_name={name}", f"general.random_seed={seed}")
            general = replace(config.general, exp_name=name, random_seed=seed)
            runs.append(PlannedRun(arm, tuple(arms[arm]), seed, replace(config, general=general), named, out))
    return runs


def refuse_other_configurations(runs: Sequence[PlannedRun]) -> None:
    """Raise ValueError if the folder of a run holds one that was made with another configuration."""
    for run in runs:
        found = run.differences()
        if found:
            raise ValueError(
                f"{run.folder} was made with another configuration: {', '.join(found)}; choose another --out, "
                "or move that folder aside"
            )


def _compared(config: Config) -> dict[str, Any]:
    flat = flatten(dump_config(config))
    # several processes compute BatchNorm's statistics each for itself; which devices they run on is no matter
    flat["trainer.gpu_ids"] = f"{max(1, len(config.trainer.gpu_ids))} processes"
    return {key: value for key, value in flat.items() if key not in _FREE}


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _refuse(taken: set[str], overrides: Sequence[str], where: str, reason: str) -> None:
    for override in overrides:
        if _key(override) in taken:
            raise ValueError(f"{where}: {override}: {reason}")


def _from_here(config: Config) -> list[str]:
    """Files that were named relative to the working directory, by their whole paths: runs have another one.

    Raises ValueError for a name that also means a file of the project.
    """
    named = {"model.pretrained": config.model.pretrained, "trainer.pretrain_model": config.trainer.pretrain_model}
    found = []
    for key, name in named.items():
        if isinstance(name, str):
            with contextlib.suppress(FileNotFoundError):  # the run says so
                path = find_file(name, key).resolve()
                if path != (PROJECT_ROOT / name).resolve():
                    found.append(f"{key}={json.dumps(str(path))}")
    return found
