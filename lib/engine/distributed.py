"""Several processes that train one model: torchrun's, or those that ``trainer.gpu_ids`` asks for.

Every process (rank) computes the losses of the whole batch: sums, counts and descriptors are exchanged, so all hold
the same value. What DistributedDataParallel then averages over the ranks is the gradient of that one value.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..system.machine import available_cores
from .device import choose_device, existing_gpus
from .sync_batch_norm import convert_batch_norm

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(minutes=30)
"""how long a rank waits for the others: the first one computes the average precision meanwhile"""
_GRACE_SECONDS = 120
"""how long ranks that were asked to end have for their step and the checkpoint, before they are killed"""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that logs and writes files."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Sum of ``value`` over the ranks, the same on each of them.

        The gradient is that of the sum of all ranks' losses: ``size`` times the gradient of the one loss that they
        all compute, and so right once DistributedDataParallel has taken the mean over the ranks.
        """
        return value if self.size == 1 else _Total.apply(value)

    def gather(self, rows: Tensor, share: int) -> Tensor:
        """Rows (B, ..) of all ranks, in the ranks' order, each rank's filled up with zeros to ``share`` rows.

        The gradient is right in the sense of :meth:`total`.
        """
        if self.size == 1:
            return rows
        padded = torch.cat([rows, rows.new_zeros(share - len(rows), *rows.shape[1:])])
        gathered: Tensor = _Gather.apply(padded, self.rank)
        return gathered

    def collect(self, item: Any) -> list[Any]:
        """``item`` of every rank, on the first one; elsewhere an empty list."""
        if self.size == 1:
            return [item]
        items: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(item, items)
        return items or []

    def share_buffers(self, model: nn.Module) -> None:
        """Give all ranks the first one's BatchNorm statistics, which are the ones that checkpoints hold."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, model: nn.Module, sync_bn: bool) -> nn.Module:
        """``model``, on its device, as what to call in training."""
        device = next(model.parameters()).device
        if sync_bn and device.type == "cpu":
            convert_batch_norm(model, self.total)  # for one process too: the same numbers whatever their number
        if self.size == 1:
            return model
        if sync_bn and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, devices, gradient_as_bucket_view=True)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return _sum(value)

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return _sum(grad)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int) -> Tensor:
        ctx.own = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _sum(grad)[ctx.own], None


def _sum(value: Tensor) -> Tensor:
    value = value.clone()
    dist.all_reduce(value)
    return value


def started_by_torchrun() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def own_rank() -> int:
    """Number of this process in its run, known before :func:`join`."""
    return int(os.environ["RANK"]) if started_by_torchrun() else 0


def join(gpu_ids: Sequence[int]) -> tuple[Ranks, torch.device]:
    """Meet the other processes of the run, if there are any.

    Raises ValueError for a GPU that does not exist, and ConnectionError where another process does not come.
    """
    gpu_ids = existing_gpus(gpu_ids)
    if not started_by_torchrun():
        return Ranks(), choose_device(gpu_ids)
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if gpu_ids:  # ids that are listed for each process; otherwise, as in `gpu_ids: 0`, the processes take their turn
        gpu_ids = [gpu_ids[local] if len(gpu_ids) >= int(os.environ["LOCAL_WORLD_SIZE"]) else local]
    device = choose_device(gpu_ids)
    _end_with_parent()
    if size > 1:
        both = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(both, timeout=_PATIENCE)
        except RuntimeError as error:
            raise ConnectionError(f"rank {rank} of {size} did not meet the others; has one of them ended?") from error
        logger.info("rank %d of %d, %s", rank, size, both)
    return Ranks(rank, size), device


def _end_with_parent() -> None:
    """Have the system send SIGTERM to this process when its launcher dies: nobody else would end it then."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG


def leave() -> None:
    """Undo :func:`join`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_contact(error: BaseException) -> bool:
    """Whether ``error`` is what a rank sees when another one has died."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "Connection"))
    )


def report(error: BaseException) -> None:
    """Have torchrun's summary name ``error`` as what ended the run."""
    if started_by_torchrun():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def launch(processes: int, script: Path, arguments: Sequence[str]) -> int:
    """Run ``script`` in that many processes, as ``torchrun --standalone --nproc_per_node`` does; returns its status.

    Where one fails, the others are ended and its status is returned, after one line that names it.
    """
    # the launcher is slow to import, and only this needs it
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = available_cores()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_GRACE_SECONDS))
    for name in list(logging.root.manager.loggerDict):  # they would repeat what is said here
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    start: Callable[..., Any] = elastic_launch(config, sys.executable)
    try:
        start(str(script), *arguments)
    except SignalException as interrupt:
        return 128 + int(interrupt.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            how = f"was killed by {signal.Signals(-failure.exitcode).name}"
            cure = "; the others were ended. Go on with --resume"
        else:
            how, cure = f"ended with status {failure.exitcode}", "; the others were ended"
        sys.stderr.write(f"error: rank {rank} of {processes} (pid {failure.pid}) {how}{cure}\n")
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0
