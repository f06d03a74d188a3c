"""The network's code for depth."""

import torch
from torch import Tensor


def decode_depth(raw: Tensor) -> Tensor:
    """Raw depth channel -> depth [m]: 1 / (sigmoid(a) + 1e-6) - 1 (MonoDLE, after CenterNet)."""
    return 1 / (raw.sigmoid() + 1e-6) - 1


def encode_depth(depth: Tensor) -> Tensor:
    """The inverse of :func:`decode_depth` for depths > 0 [m]. Training has no need of it: losses compare metres."""
    return torch.logit(1 / (depth + 1) - 1e-6)
