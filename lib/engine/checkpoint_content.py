"""What a checkpoint file may hold. It is checked when the file is read, so that no other code meets odd types."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config.checks import shown

WITHOUT_EMA = "model_state_without_ema"  # key of the weights that a training with trainer.ema continues from


def check_content(state: Mapping[str, Any]) -> None:
    """Raise ValueError for weights, an epoch, a best AP or a focal length that no training has written.

    Official checkpoints have ``model_state``, ``optimizer_state`` and ``epoch`` only. ``progress``, ``random_state``
    and ``optimizer_state`` are checked by who resumes from them.
    """
    for key in ("model_state", WITHOUT_EMA):
        if key in state:
            _check_weights(state[key], key)
    epoch, camera = state.get("epoch"), state.get("camera")
    if epoch is not None and not (type(epoch) is int and 0 <= epoch < 1e9):
        raise ValueError(f"its epoch is {shown(epoch)}, expected a number of epochs")
    focal = camera.get("focal_net", 1.0) if isinstance(camera, dict) else 1.0 if camera is None else camera
    if not (type(focal) in (int, float) and math.isfinite(focal) and 0 < focal < 1e7):
        raise ValueError(f"its camera.focal_net is {shown(focal)}, expected a focal length in pixels")


def _check_weights(weights: Any, key: str) -> None:
    for name, value in weights.items() if isinstance(weights, dict) else [("", None)]:
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"its {key!r} is not a mapping of names to tensors")
        if not _is_plain(value):
            raise ValueError(f"its weight {name[:80]!r} is no ordinary tensor ({value.layout}, {value.dtype})")
    broken = find_not_finite(weights)
    if broken:
        raise ValueError(f"its weights are not finite, the first is {broken}; use an earlier checkpoint")
    negative = [n for n, value in weights.items() if n.endswith(".running_var") and value.numel() and value.min() < 0]
    if negative:
        raise ValueError(f"its {negative[0][:80]} is negative, which no variance is")


def find_not_finite(tree: Any, name: str = "") -> str:
    """Path, such as 'weights.bias', of the first tensor in nested mappings that holds NaN or infinity; '' if none."""
    if isinstance(tree, Tensor):
        return name if tree.is_floating_point() and not bool(torch.isfinite(tree).all()) else ""
    parts = tree.items() if isinstance(tree, dict) else ()
    return next(filter(None, (find_not_finite(part, f"{name}.{key}".lstrip(".")) for key, part in parts)), "")


def _is_plain(value: Tensor) -> bool:
    """Whether it is dense, in memory, of a number type that weights have, and no larger than its storage."""
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
        return False
    known = value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
    return known and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
