"""The network's code for depth."""

from torch import Tensor


def decode_depth(raw: Tensor) -> Tensor:
    """Raw depth channel -> depth [m]: 1 / (sigmoid(a) + 1e-6) - 1 (MonoDLE, after CenterNet)."""
    return 1 / (raw.sigmoid() + 1e-6) - 1
