"""The encoding of the depth head."""

import torch
from torch import Tensor


def decode_depth(raw: Tensor) -> Tensor:
    """Raw depth channel a -> depth [m]: 1 / (sigmoid(a) + 1e-6) - 1 (MonoDLE, after CenterNet)."""
    return 1 / (raw.sigmoid() + 1e-6) - 1


def encode_depth(depth: Tensor) -> Tensor:
    """The inverse of :func:`decode_depth`, for depths > 0 [m]. Training does not need it: losses compare metres."""
    return torch.logit(1 / (depth + 1) - 1e-6)
