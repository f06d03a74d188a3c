"""Arms of a comparison: the keys that each one changes in an experiment. Free of torch."""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import read_yaml


def read_arms(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The arms ``names`` of a file, in this order: {arm: ['section.key=value', ..]}.

    Raises FileNotFoundError, or ValueError naming the file, the arm, and what is accepted.
    """
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


def _to_overrides(changes: Any, where: str) -> list[str]:
    if changes is None:
        return []
    if not isinstance(changes, dict):
        raise ValueError(f"{where}: expected a mapping such as {{general.qi: false}}, got {changes!r}")
    try:
        return [f"{key}={json.dumps(value)}" for key, value in changes.items()]  # JSON is YAML on one line
    except TypeError:
        raise ValueError(f"{where}: expected numbers, texts, true, false, or lists of them, got {changes!r}") from None
