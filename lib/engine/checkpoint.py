"""Checkpoint files: the three keys of the official code, and what this project adds."""

import logging
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..system.files import atomic_write
from .checkpoint_content import WITHOUT_EMA, check_content, find_not_finite

logger = logging.getLogger(__name__)

_MOMENTS: dict[type, set[str]] = {
    torch.optim.Adam: {"exp_avg", "exp_avg_sq"},
    torch.optim.AdamW: {"exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}
OPTIONAL_HEAD = "obj_depth."  # beginning of the names of the parameters that only training uses


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    config: dict[str, Any],
    best: float | None,
    progress: dict[str, Any] | None = None,
    focal_net: float | None = None,
    without_ema: nn.Module | None = None,
) -> None:
    """Write the official ``epoch`` (epochs done), ``model_state`` and ``optimizer_state``, and this project's keys.

    Those are config, best AP, version, ``progress`` (see ``Progress.state``), the states of the random generators and,
    under ``camera``, ``focal_net``: the focal length of the training images at network resolution [px].
    ``without_ema``: the model in training, where ``model`` is the moving average of its weights.
    The file holds tensors and plain values only. It is written completely or not at all; raises OSError where it cannot
    be written, FloatingPointError for numbers that are not finite, and an older file is then unchanged.
    """
    tensors = {"weights": model.state_dict(), "optimizer": optimizer.state_dict()["state"]}
    broken = find_not_finite(tensors | ({"weights without ema": without_ema.state_dict()} if without_ema else {}))
    if broken:
        raise FloatingPointError(
            f"{broken} is not finite any more, so {path.name} is not written; the last checkpoint is unchanged. Lower "
            "optimizer.lr and continue with --resume, or look at the last epoch's losses"
        )
    state = {
        "epoch": epoch,
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "config": config,
        "best": best,
        "progress": progress or {},
        "random_state": random_state(),
        "camera": {} if focal_net is None else {"focal_net": focal_net},
        "version": __version__,
    } | ({WITHOUT_EMA: without_ema.state_dict()} if without_ema else {})
    try:
        with atomic_write(path) as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's writer replaces the OSError
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__cause__ or reason.__context__
        number = getattr(reason, "errno", None)
        if number is None:  # not the disk
            raise
        raise OSError(number, f"this checkpoint could not be written: {os.strerror(number)}", str(path)) from error


def random_state() -> dict[str, Any]:
    """States of the global random generators of python, numpy, torch and every GPU, as tensors and plain values.

    This project does not draw from them during training; code that extends it may.
    """
    kind, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Any, origin: Path) -> None:
    """Restore :func:`random_state`; the generators of GPUs only if the machine has as many as before.

    Raises ValueError for anything else than what that function returns.
    """
    try:
        random.setstate(state["python"])
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{origin}: its 'random_state' is damaged ({type(error).__name__})") from None


def read_checkpoint(path: Path, metadata_only: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Only tensors and plain values are unpickled, never code.

    ``metadata_only``: memory-map the tensors instead of reading them, to read the rest quickly.
    Raises FileNotFoundError, or ValueError for a file that is no checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        zipped = zipfile.is_zipfile(path)  # files of the official code are not, and cannot be mapped
        if zipped and not metadata_only:
            _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=metadata_only and zipped)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: not a readable checkpoint: no PyTorch file, or one that holds more than tensors and plain values"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise any exception in the unpickler
        logger.debug("%s", path, exc_info=error)
        raise ValueError(f"{path}: not a readable checkpoint: cut off, or no PyTorch file") from None
    if not isinstance(state, dict) or not isinstance(state.get("model_state"), dict):
        raise ValueError(f"{path}: not a checkpoint of a detector: it has no 'model_state'")
    if not metadata_only:
        if not zipped:
            logger.warning("%s: a format without check sums (torch < 1.6): damage to it cannot be noticed", path)
        try:
            check_content(state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return state


def _check_sums(path: Path) -> None:
    """Compare the records with their CRC-32, which torch does not. Raises zipfile.BadZipFile."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} has another CRC-32 than when it was written")


def load_model_state(model: nn.Module, state: dict[str, Tensor], origin: Path) -> None:
    """Load strictly, except for the obj_depth head, which may be missing on either side; that is logged.

    Raises ValueError, naming parameters, for a checkpoint of another model.
    """
    names = len(state)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if len(state) < names:
        raise ValueError(f"{origin}: it has weights twice, with and without 'module.' before their name")
    own = model.state_dict()
    surplus = [name for name in state if name.startswith(OPTIONAL_HEAD) and name not in own]
    if surplus:
        logger.debug("%s: its obj_depth head is left out; it is for training only", origin)
        state = {name: value for name, value in state.items() if name not in surplus}
    absent = [name for name in own if name.startswith(OPTIONAL_HEAD) and name not in state]
    if absent:
        logger.info("%s: it has no obj_depth head; the model's keeps its initial weights", origin)
        state |= {name: own[name] for name in absent}
    faults = [f"lacks {name}" for name in own if name not in state]
    faults += [f"has an unknown {name[:80]}" for name in state if name not in own]
    faults += [
        f"has {name} of {tuple(value.shape)} {value.dtype} instead of {tuple(own[name].shape)} {own[name].dtype}"
        for name, value in state.items()
        if name in own
        and (value.shape != own[name].shape or value.is_floating_point() != own[name].is_floating_point())
    ]
    if faults:
        raise ValueError(
            f"{origin}: a checkpoint of another model: it {faults[0]}"
            + (f", and {len(faults) - 1} more differences" if len(faults) > 1 else "")
            + "; check model.backbone and dataset.class_names"
        )
    model.load_state_dict(state)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: object, origin: Path) -> None:
    """Load moments and step counts; the learning rate, weight decay and so on stay those of ``optimizer``.

    Raises ValueError where the state is missing, or of another optimizer or model.
    """
    own = optimizer.state_dict()
    try:
        if not isinstance(state, dict):
            raise ValueError("it has none (a released checkpoint?); trainer.pretrain_model starts from its weights")
        groups = [{**mine, "params": theirs["params"]} for mine, theirs in _pairs(own, state)]
        slots = {name for entry in state["state"].values() for name in entry}
        expected = _MOMENTS.get(type(optimizer), set())
        if slots and not expected <= slots:
            kind = type(optimizer).__name__
            raise ValueError(f"it has {', '.join(sorted(slots))}; {kind} needs {', '.join(sorted(expected))}")
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{origin}: its optimizer state does not fit this run: {error}") from None


def _pairs(own: dict[str, Any], state: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    mine, theirs = own["param_groups"], state["param_groups"]
    if [len(g["params"]) for g in mine] != [len(g["params"]) for g in theirs]:
        raise ValueError("it has other parameter groups (another backbone, or general.obj_depth?)")
    return list(zip(mine, theirs, strict=True))
