"""Checkpoints: the official three keys where the official code reads them, and what this project adds."""

from __future__ import annotations

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib import __version__
from lib.files import atomic_write

logger = logging.getLogger(__name__)

_MOMENTS: dict[type, set[str]] = {
    torch.optim.Adam: {"exp_avg", "exp_avg_sq"},
    torch.optim.AdamW: {"exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}
OPTIONAL_HEAD = "obj_depth."
"""parameters of the head that exists in training only"""


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    config: dict[str, Any],
    best: float | None,
) -> None:
    """Write ``epoch`` (epochs done), ``model_state``, ``optimizer_state``; and config, best AP, version. Atomic."""
    state = {
        "epoch": epoch,
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "config": config,
        "best": best,
        "version": __version__,
    }
    with atomic_write(path) as file:
        torch.save(state, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Only tensors and plain values are unpickled, never code.

    Raises FileNotFoundError, or ValueError for a file that is no checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{path}: not a readable checkpoint: cut off, or no PyTorch file ({reason})") from None
    if not isinstance(state, dict) or not isinstance(state.get("model_state"), dict):
        raise ValueError(f"{path}: not a checkpoint of a detector: it has no 'model_state'")
    return state


def load_model_state(model: nn.Module, state: dict[str, Tensor], origin: Path) -> None:
    """Load strictly, except for the obj_depth head, which either side may lack; that is logged.

    Raises ValueError, naming parameters, for a checkpoint of another model.
    """
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise ValueError(f"{origin}: its 'model_state' is not a mapping of names to tensors")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    own = model.state_dict()
    surplus = [name for name in state if name.startswith(OPTIONAL_HEAD) and name not in own]
    if surplus:
        logger.info("%s: its obj_depth head is dropped; the model has none", origin)
        state = {name: value for name, value in state.items() if name not in surplus}
    absent = [name for name in own if name.startswith(OPTIONAL_HEAD) and name not in state]
    if absent:
        logger.info("%s: it has no obj_depth head; the model's keeps its initial weights", origin)
        state |= {name: own[name] for name in absent}
    faults = [f"lacks {name}" for name in own if name not in state]
    faults += [f"has an unknown {name}" for name in state if name not in own]
    faults += [
        f"has {name} of shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if faults:
        raise ValueError(
            f"{origin}: a checkpoint of another model: it {faults[0]}"
            + (f", and {len(faults) - 1} more differences" if len(faults) > 1 else "")
            + "; check model.backbone and model.num_class"
        )
    model.load_state_dict(state)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: object, origin: Path) -> None:
    """Moments and step counts are loaded; weight decay and the like stay as the config has them.

    Raises ValueError where the state is missing, or of another optimizer or model.
    """
    own = optimizer.state_dict()
    try:
        if not isinstance(state, dict):
            raise ValueError("it has no 'optimizer_state'")
        groups = [{**mine, "params": theirs["params"]} for mine, theirs in _pairs(own, state)]
        slots = {name for entry in state["state"].values() for name in entry}
        expected = _MOMENTS[type(optimizer)]
        if slots and not expected <= slots:
            kind = type(optimizer).__name__
            raise ValueError(f"it has {', '.join(sorted(slots))}; {kind} needs {', '.join(sorted(expected))}")
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{origin}: its optimizer state does not fit this run: {error}") from None


def _pairs(own: dict[str, Any], state: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    mine, theirs = own["param_groups"], state["param_groups"]
    if [len(g["params"]) for g in mine] != [len(g["params"]) for g in theirs]:
        raise ValueError("it has other parameter groups")
    return list(zip(mine, theirs, strict=True))
