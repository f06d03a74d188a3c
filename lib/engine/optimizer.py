"""Optimizer, the learning rate as a pure function of the epoch, and the moving average of weights."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..config import LrScheduler, Optimizer

WARMUP_START = 1e-5


def learning_rate(epoch: int, base: float, config: LrScheduler, max_epoch: int) -> float:
    """Learning rate of ``epoch`` (from 0) of ``max_epoch``.

    As in the official code: a half cosine from 1e-5 to ``base`` over the warm-up epochs, then ``base`` times
    ``decay_rate`` for every entry of ``decay_list`` that has passed, *counted from the end of the warm-up*: the
    official code runs two schedulers one after the other, so decay_list [90, 120] decays at epochs 95 and 125.
    Type 'cosine', not of the official code, ends in a half cosine from ``base`` to 0 instead.
    """
    warmup = config.warmup_epochs if config.warmup else 0
    if epoch < warmup:
        return WARMUP_START + (base - WARMUP_START) * (1 - math.cos(math.pi * epoch / warmup)) / 2
    if config.type == "cosine":
        return base * (1 + math.cos(math.pi * (epoch - warmup) / (max_epoch - warmup))) / 2
    passed = sum(epoch - warmup >= decay for decay in config.decay_list)
    return base * config.decay_rate**passed


def build_optimizer(model: nn.Module, config: Optimizer, fused: bool = False) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD. Parameters whose name contains 'bias' get no weight decay.

    Two groups, biases first, in the model's order: the layout of official checkpoints' ``optimizer_state``.
    ``fused``: PyTorch's fused implementation, for GPUs; equal up to rounding.
    """
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
        {"params": [p for name, p in named if "bias" not in name], "weight_decay": config.weight_decay},
    ]
    kind = config.type.lower()
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    return (torch.optim.AdamW if kind == "adamw" else torch.optim.Adam)(groups, lr=config.lr, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set ``rate`` in all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Parameters of ``average`` *= decay, plus (1 - decay) times those of ``model``; buffers, such as the statistics of
    BatchNorm, are copied. torch's AveragedModel makes the host wait for a GPU."""
    with torch.no_grad():
        get_ema_multi_avg_fn(decay)(list(average.parameters()), list(model.parameters()), 0)
        torch._foreach_copy_(list(average.buffers()), list(model.buffers()))
