"""The device to run on."""

import logging
from collections.abc import Sequence

import torch

from ..ops.text import counted
from ..system.machine import keep_freed_memory, peak_memory

logger = logging.getLogger(__name__)


def existing_gpus(gpu_ids: Sequence[int]) -> tuple[int, ...]:
    """Those of ``gpu_ids`` that this machine has, with a warning where some are missing.

    All of them where the machine has none, or no CUDA. So ``gpu_ids: 0, 1`` of an official file runs on one GPU.
    """
    if not torch.cuda.is_available():
        return tuple(gpu_ids)
    present = tuple(i for i in gpu_ids if i < torch.cuda.device_count())
    if present and len(present) < len(gpu_ids):
        text = "trainer.gpu_ids: %s, but this machine has %d GPUs; using %s"
        logger.warning(text, list(gpu_ids), torch.cuda.device_count(), list(present))
    return present or tuple(gpu_ids)


def describe_memory(device: torch.device) -> str:
    """', peak memory 3.2 GB': of this process, or of what PyTorch has reserved on its GPU; '' where it is unknown."""
    used = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory()
    return "" if used is None else f", peak memory {used / 1e9:.1f} GB"


def choose_device(gpu_ids: Sequence[int]) -> torch.device:
    """The first of ``gpu_ids``, or the CPU without CUDA or ids. Raises ValueError for a GPU that is not there."""
    if not torch.cuda.is_available() or not gpu_ids:
        why = ", since trainer.gpu_ids is empty" if torch.cuda.is_available() else "; no CUDA device was found"
        logger.info("device: CPU (%s)%s", counted(torch.get_num_threads(), "thread"), why)
        keep_freed_memory()
        return torch.device("cpu")
    if gpu_ids[0] >= torch.cuda.device_count():
        raise ValueError(f"trainer.gpu_ids: no GPU {gpu_ids[0]}; this machine has {torch.cuda.device_count()}")
    torch.cuda.set_device(gpu_ids[0])  # otherwise pinned memory creates a context on GPU 0
    logger.info("device: GPU %d, %s", gpu_ids[0], torch.cuda.get_device_name(gpu_ids[0]))
    return torch.device("cuda", gpu_ids[0])
