"""The runs of a comparison: every arm with every seed, checked before the first one starts. Free of torch.

An arm is the keys that it changes in an experiment.
"""

import contextlib
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..config import PROJECT_ROOT, Config, differences, find_file, load_config, read_yaml
from ..datasets import build_dataset
from ..engine.metrics import read_metrics

Arms = dict[str, list[str]]  # arm -> 'section.key=value' of all keys that it changes
_RESERVED = {"general.exp_name", "general.random_seed", "tester.mode", "tester.checkpoint", "trainer.resume_model"}
"""keys that neither an arm nor --set may change: a run is named by arm and seed, and evaluated at its last epoch"""
_MAY_DIFFER = {"dataset.num_workers", "dataset.cache", "trainer.eval_frequency", "trainer.save_frequency"}
_MAY_DIFFER |= {"trainer.save_interval_minutes", "trainer.keep_last", "trainer.report", "tester.images"}
"""keys without influence on the figures: a stored run may have other values"""


@dataclass(frozen=True)
class PlannedRun:
    arm: str
    changes: tuple[str, ...]  # what the arm changes: 'section.key=value'
    seed: int
    config: Config
    overrides: tuple[str, ...]  # what ``train_val.py --set`` needs to make ``config`` from the experiment's file
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

    def require_same_configuration(self) -> None:
        """Raise ValueError if the folder has a training or a last evaluation with another configuration."""
        found: dict[str, tuple[Any, Any]] = {}
        for folder in (self.folder, self.results):
            path = folder / "config.yaml"
            if path.is_file():
                found |= differences(load_config(path), self.config)
        relevant = {key: values for key, values in found.items() if key not in _MAY_DIFFER}
        gpus = relevant.get("trainer.gpu_ids", ((), ()))
        if max(1, len(gpus[0])) == max(1, len(gpus[1])):
            # which devices does not matter; how many does, since each process has its own BatchNorm statistics
            relevant.pop("trainer.gpu_ids", None)
        if relevant:
            changes = ", ".join(f"{key}={stored!r} (now {now!r})" for key, (stored, now) in relevant.items())
            advice = "choose another --out, or move that folder away"
            raise ValueError(f"{self.folder} was made with another configuration: {changes}; {advice}")


def parse_seeds(text: str) -> range:
    """'5': seeds 1 to 5; '6-10': seeds 6 to 10. Raises ValueError for anything else."""
    match = re.fullmatch(r"(?:([0-9]{1,9})-)?([0-9]{1,9})", text, re.ASCII)
    first, last = (int(match[1] or 1), int(match[2])) if match else (1, 0)
    if not 1 <= first <= last:
        raise ValueError(f"--seeds must be a number >= 1, or the first and the last seed, such as 6-10, got {text}")
    return range(first, last + 1)


def read_arms(path: Path, names: Sequence[str]) -> Arms:
    """The arms ``names`` of a file. Raises FileNotFoundError, or ValueError naming file, arm and what is accepted."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of arms")
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected a mapping of arms, such as 'baseline: {{general.qi: false}}'")
    arms = {str(name): _to_overrides(changes, f"{path}: arm {name!r}") for name, changes in content.items()}
    for name in arms:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII):
            raise ValueError(f"{path}: the name of an arm may have letters, digits and _ . + -, got {name!r}")
    for k, name in enumerate(names):
        if name not in arms:
            near = difflib.get_close_matches(name, arms, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(arms)}"
            raise ValueError(f"--arms: {path} has no arm {name!r}; {hint}")
        if name in names[:k]:
            raise ValueError(f"--arms: {name!r} is given twice")
    return {name: arms[name] for name in names}


def arms_over(text: str) -> Arms:
    """An arm for each value of 'section.key=a,b,c', named 'key_a' and so on. Raises ValueError."""
    key, _, values = text.partition("=")
    try:
        found = yaml.safe_load(f"[{values}]")
        json.dumps(found)
    except (yaml.YAMLError, TypeError):  # TypeError: a date
        found = []
    if "." not in key or len(found) < 2:
        raise ValueError(f"--over: expected a key and two or more values, such as general.K=1.25,1.5,2, got {text!r}")
    arms = {}
    for value in found:
        written = re.sub(r"[^\w.+-]+", "_", value if isinstance(value, str) else json.dumps(value), flags=re.ASCII)
        name = f"{key.strip().rpartition('.')[2]}_{written.strip('_')}"
        if name in arms:
            raise ValueError(f"--over: {key}: two values would both be named {name}")
        arms[name] = [f"{key.strip()}={json.dumps(value)}"]
    return arms


def _to_overrides(changes: Any, where: str) -> list[str]:
    if changes is None:
        return []
    if not isinstance(changes, dict):
        raise ValueError(f"{where}: expected a mapping such as {{general.qi: false}}, got {changes!r}")
    flat: dict[str, Any] = {}
    for key, value in changes.items():  # 'general.qi: false', or 'general: {qi: false}'
        section = "." not in str(key) and isinstance(value, dict)
        flat |= {f"{key}.{name}": each for name, each in value.items()} if section else {key: value}
    try:
        return [f"{key}={json.dumps(value)}" for key, value in flat.items()]  # JSON is YAML on one line
    except TypeError:
        raise ValueError(f"{where}: expected numbers, texts, true, false, or lists of them, got {changes!r}") from None


def plan_runs(
    base: Path, arms: Arms, seeds: Sequence[int], overrides: Sequence[str], device: Sequence[str], out: Path
) -> list[PlannedRun]:
    """All runs, ordered by seed, so that an unfinished comparison has nearly the same seeds of every arm.

    ``overrides``: 'section.key=value' for all arms; ``device``: further ones, which follow from where the runs are
    executed. Raises FileNotFoundError or ValueError for what cannot be run, naming arm, key, value, what is accepted.
    """
    reserved = {_key(override) for override in device} | _RESERVED
    _refuse(reserved, overrides, "--set")
    planned: dict[str, tuple[Config, tuple[str, ...]]] = {}
    for arm, changes in arms.items():
        _refuse(reserved, changes, f"arm {arm!r}")
        _refuse({_key(change) for change in changes}, overrides, "--set", f"arm {arm!r} sets this key")
        try:
            config, own = _config_of_arm(base, (*overrides, *changes, *device))
        except ValueError as error:
            raise ValueError(f"arm {arm!r}: {error}") from None
        for other, (other_config, _) in planned.items():
            if other_config == config:
                raise ValueError(f"arms {other!r} and {arm!r} have the same configuration")
        planned[arm] = config, own
    runs = []
    for seed in seeds:
        for arm, (config, own) in planned.items():
            name = f"{arm}_seed{seed}"
            named = (*own, f"general.exp_name={name}", f"general.random_seed={seed}")
            general = replace(config.general, exp_name=name, random_seed=seed)
            runs.append(PlannedRun(arm, tuple(arms[arm]), seed, replace(config, general=general), named, out))
    return runs


def check_data(runs: Iterable[PlannedRun]) -> None:
    """Open a frame of both splits, find the weights: errors now are better than after days.

    Raises ValueError naming arm and file.
    """
    for arm, config in {run.arm: run.config for run in runs}.items():
        try:
            build_dataset(config, config.dataset.train_split, training=True, max_frames=1)
            build_dataset(config, config.tester.split, max_frames=1)
            if config.trainer.pretrain_model:
                find_file(config.trainer.pretrain_model, "trainer.pretrain_model")
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(f"arm {arm!r}: {error}") from None


def _config_of_arm(base: Path, overrides: tuple[str, ...]) -> tuple[Config, tuple[str, ...]]:
    """The configuration, and all overrides that make it from ``base`` in any working directory.

    Raises ValueError for what cannot be compared, and for a name that is a file here and another file of the project.
    """
    overrides = (*overrides, "tester.mode=single", "tester.checkpoint=''")
    config = load_config(base, overrides)
    weights = {"model.pretrained": config.model.pretrained, "trainer.pretrain_model": config.trainer.pretrain_model}
    for key, name in weights.items():
        with contextlib.suppress(FileNotFoundError):  # the run itself reports it
            if isinstance(name, str) and (path := find_file(name, key).resolve()) != (PROJECT_ROOT / name).resolve():
                overrides = (*overrides, f"{key}={json.dumps(str(path))}")  # runs have another working directory
    config = load_config(base, overrides)
    if config.trainer.resume_model:
        raise ValueError(f"{base}: trainer.resume_model must be empty: runs resume from their own checkpoints")
    if config.tester.split == "test":
        raise ValueError(f"{base}: tester.split must have labels, got 'test'")
    return config, overrides


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _refuse(keys: set[str], given: Sequence[str], where: str, why: str = "the comparison sets this key itself") -> None:
    for override in given:
        if _key(override) in keys:
            raise ValueError(f"{where}: {override}: {why}")
