"""A checkpoint to hand out: what prediction, evaluation and fine-tuning need, without the state of the training."""

import logging
from pathlib import Path

import torch

from ..config import dump_config
from ..engine.checkpoint import read_checkpoint
from ..engine.network import load_network
from ..models import build_model
from ..system.files import atomic_write

logger = logging.getLogger(__name__)
KEPT = ("epoch", "model_state", "best", "camera", "version")


def release_checkpoint(path: Path, out: Path, config: str | None, overrides: list[str], overwrite: bool) -> None:
    """Write ``path`` without optimizer, progress and random states, and with its configuration, as ``out``.

    ``config`` and ``overrides`` are those of ``load_network``: an official checkpoint gets the configuration of its
    YAML. Raises FileNotFoundError or ValueError for bad input.
    """
    if out.suffix != ".pth":
        raise ValueError(f"--release must end in .pth, got {out.name!r}")
    if out.exists() and (not overwrite or out.samefile(path)):
        raise ValueError(f"{out} exists already; --overwrite replaces it, but not the checkpoint itself")
    used = load_network(path, build_model, config, overrides).config  # checks that the weights fit
    state = read_checkpoint(path)
    with atomic_write(out) as file:
        torch.save({key: state[key] for key in KEPT if key in state} | {"config": dump_config(used)}, file)
    sizes = [each.stat().st_size / 1e6 for each in (path, out)]
    logger.info("%s: %.1f MB, %s: %.1f MB", path, sizes[0], out, sizes[1])
