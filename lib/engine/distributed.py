"""Several ranks that train one model: processes of torchrun, or those that ``trainer.gpu_ids`` starts.

Every rank computes the losses of the whole batch: sums, counts and descriptors are exchanged, so all ranks have
the same value. DistributedDataParallel then averages the gradient of that one value over the ranks.
"""

import atexit
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..system.machine import available_cores
from .device import choose_device, existing_gpus

logger = logging.getLogger(__name__)

_TIMEOUT = timedelta(minutes=30)  # for a collective operation: the others wait while rank 0 computes the AP
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where a rank reports its error to torchrun
_SHUTDOWN_SECONDS = 120  # between torchrun's SIGTERM to a rank and its SIGKILL: enough for a step and a checkpoint


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank among the ``size`` ranks of the run; the collective operations that the run needs."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which logs and writes files."""
        return self.rank == 0

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """Sum of ``value`` over the ranks, the same on each of them.

        The gradient is that of the sum of all ranks' losses: ``size`` times the gradient of the one loss that they
        all compute, which is right after DistributedDataParallel has averaged over the ranks.
        """
        return value if self.size == 1 else _AllReduceSum.apply(value)

    def sum_integers(self, values: Sequence[int]) -> list[int]:
        """Sums of ``values`` over the ranks. A GPU is not waited for, only the other ranks' hosts."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values)
        dist.all_reduce(total)
        return [int(value) for value in total]

    def gather_rows(self, rows: Tensor, share: int) -> Tensor:
        """Rows (B, ..) of all ranks by rank -> (size * share, ..); each rank's rows are padded with zeros.

        The gradient is right in the sense of :meth:`all_reduce_sum`.
        """
        if self.size == 1:
            return rows
        first, total = self.rank * share, self.size * share
        before = rows.new_zeros(first, *rows.shape[1:])
        after = rows.new_zeros(total - first - len(rows), *rows.shape[1:])
        return self.all_reduce_sum(torch.cat([before, rows, after]))

    def gather_objects(self, item: Any) -> list[Any]:
        """``item`` of every rank, on rank 0; an empty list elsewhere."""
        if self.size == 1:
            return [item]
        items: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(item, items)
        return items or []

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all ranks the BatchNorm statistics of rank 0, which checkpoints hold."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, model: nn.Module, sync_bn: bool) -> nn.Module:
        """The module to call in training: ``model`` itself, or DistributedDataParallel around it.

        Raises ValueError for ``sync_bn`` on the CPU, where PyTorch has no SyncBatchNorm, and for a model with layers
        that do more than BatchNorm (some of timm's contain an activation), which SyncBatchNorm would replace.
        """
        device = next(model.parameters()).device
        if self.size == 1:
            return model
        if sync_bn:
            if device.type != "cuda":
                raise ValueError("trainer.sync_bn needs GPUs: PyTorch has no SyncBatchNorm on the CPU; set it to false")
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d) and type(module) is not nn.BatchNorm2d:
                    kind = type(module).__name__
                    raise ValueError(f"trainer.sync_bn must be false for this backbone: SyncBatchNorm is no {kind}")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, devices, gradient_as_bucket_view=True)

    def keep_gradients_local(self, module: nn.Module) -> contextlib.AbstractContextManager[None]:
        """A context in which forward and backward passes of ``module``, made by :meth:`wrap`, only add to gradients:
        the ranks average them in the first backward pass after it."""
        if isinstance(module, nn.parallel.DistributedDataParallel):
            return module.no_sync()
        return contextlib.nullcontext()


class _AllReduceSum(torch.autograd.Function):
    """Sum over the ranks; so is its gradient. PyTorch's own (torch.distributed.nn) is deprecated since 2.14."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return _AllReduceSum.forward(None, grad)


def started_by_torchrun() -> bool:
    """Whether this process is a rank that torchrun (or :func:`launch`, or Kubernetes) has started."""
    return "RANK" in os.environ or "WORLD_SIZE" in os.environ


def own_rank() -> int:
    """Rank of this process, also before :func:`join`, which refuses a RANK that is no number; here it counts as 0."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() else 0


def _read_variables() -> tuple[int, int, int, int]:
    """RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE of the environment. Without the last two, as in a PyTorchJob of
    Kubernetes, each machine has one rank. Raises ValueError."""
    defaults = {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    texts = [os.environ.get(name, default) for name, default in defaults.items()]
    given = ", ".join(f"{name}={os.environ.get(name, '(not set)')}" for name in defaults)
    if not all(text.isdecimal() for text in texts):
        raise ValueError(f"environment variables of a rank must be numbers, got {given}; torchrun sets them")
    rank, size, local, local_size = map(int, texts)
    if not (rank < size and local < local_size <= size):
        raise ValueError(f"environment variables of a rank contradict each other: {given}; torchrun sets them")
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if size > 1 and not (address and port.isdecimal()):
        raise ValueError(f"WORLD_SIZE={size} needs MASTER_ADDR, and a number as MASTER_PORT, got {address!r}, {port!r}")
    return rank, size, local, local_size


def join(gpu_ids: Sequence[int]) -> tuple[ProcessGroup, torch.device]:
    """Initialise the process group if torchrun has started this process, and choose its device.

    Raises ValueError for a GPU that does not exist and for variables that do not fit, ConnectionError if the ranks do
    not meet in time.
    """
    gpu_ids = existing_gpus(gpu_ids)
    if not started_by_torchrun():
        return ProcessGroup(), choose_device(gpu_ids)
    rank, size, local, local_size = _read_variables()
    if gpu_ids:  # one id for each local rank; with fewer ids (gpu_ids: 0) local rank k takes GPU k
        gpu_ids = [gpu_ids[local] if len(gpu_ids) >= local_size else local]
    device = choose_device(gpu_ids)
    _end_with_parent()
    if size > 1:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        text = f"rank {rank} of {size} waits for the others at {place}, at most {_TIMEOUT.seconds // 60} minutes"
        if rank == 0:
            logger.info(text)
        elif local == 0:  # another machine, on which nothing else would be written
            sys.stderr.write(f"{text}; messages are written by rank 0 only\n")
        try:
            with _ended_by_signals():
                dist.init_process_group(backend, timeout=_TIMEOUT)
        except RuntimeError as error:
            reason = "could not join the process group; another rank may have failed"
            raise ConnectionError(f"rank {rank} of {size} {reason}") from error
        logger.info("rank %d of %d, %s", rank, size, backend)
    return ProcessGroup(rank, size), device


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Signals end the process at once: while torch waits for other ranks, Python's handlers do not run."""
    changed = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(signum)):
            changed[signum] = signal.signal(signum, signal.SIG_DFL)
    try:
        yield
    finally:
        for signum, handler in changed.items():
            signal.signal(signum, handler)


def _end_with_parent() -> None:
    """Let Linux send SIGTERM to this rank when its launcher is killed; nothing else would end it."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG


def leave() -> None:
    """Undo :func:`join`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def end_process(status: int) -> NoReturn:
    """End this process after its exit handlers; a rank without Python's finalisation.

    A thread of Gloo that releases the last collective's tensor while Python is finalised aborts the process (SIGABRT,
    in 1 of 12 short runs), and torchrun then ends the other ranks.
    """
    if not started_by_torchrun():
        sys.exit(status)
    atexit._run_exitfuncs()  # those of logging and of loader processes too
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def lost_contact(error: BaseException) -> bool:
    """Whether ``error`` is what a rank gets when another one has died."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "Connection"))
    )


def record_error(error: BaseException) -> None:
    """Name ``error`` in torchrun's summary as the cause of the run's end."""
    path = os.environ.get(_ERROR_FILE)
    if started_by_torchrun() and path:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        # torchrun may end this rank while it writes, and would then fail to read half a file
        os.environ[_ERROR_FILE] = f"{path}.tmp"
        get_error_handler().record_exception(error)
        os.environ[_ERROR_FILE] = path
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}.tmp", path)


def launch(processes: int, script: Path, arguments: Sequence[str]) -> int:
    """Run ``script`` as that many ranks on this machine, with torchrun in this process; returns an exit status.

    Where a rank fails, torchrun ends the others; one line names the rank and the status is its own.
    """
    # imported here because a single process does not need it
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SHUTDOWN_SECONDS))
    for name in list(logging.root.manager.loggerDict):  # torchrun's own messages repeat the lines written here
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        # after "--" torchrun does not take --e for an abbreviation of one of its own options
        run(parse_args(["--standalone", f"--nproc-per-node={processes}", "--", str(script), *arguments]))
    except SignalException as interrupt:
        return 128 + int(interrupt.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code, advice = failure.exitcode, ". Continue with --resume" if failure.exitcode < 0 else ""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        who = f"rank {rank} of {processes} (pid {failure.pid})"
        sys.stderr.write(f"error: {who} {how}; the others were ended{advice}\n")
        return code if code > 0 else 128 - code
    return 0
