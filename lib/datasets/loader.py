"""Loader processes: what they need of the machine, and an end to every wait for one that is dead or silent."""

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from ..system.machine import allow_open_files, free_shared_memory, keep_freed_memory

_POLL_SECONDS = 1.0
_MOST_POLLS = 600  # without a batch; polls and not the clock, which goes on while a whole job is suspended
_POLLS_AFTER_SIGNAL = 5
_BATCHES_IN_USE = 3  # in the training process, beside the two that each worker has ready
_OPEN_FILES = 64  # of a process without workers: libraries, log, checkpoint
_CURE = "set dataset.num_workers to a smaller number (0: no loader processes)"

# torch's handler raises an error amid an optimizer step or a checkpoint when a worker dies; here the wait finds it
signal_handling._SIGCHLD_handler_set = True
_started: list[BaseProcess] = []


class WatchedLoader(DataLoader[Any]):
    """A DataLoader that raises ConnectionError where a worker has died, or where no batch arrives in ten minutes.

    torch waits without end for a silent worker. The next batch is therefore awaited in a thread.
    """

    asked_to_stop: Callable[[], bool] = staticmethod(lambda: False)
    """whether a signal has arrived: then five seconds without a batch are enough"""
    processes: tuple[BaseProcess, ...] = ()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not self.num_workers:
            yield from super().__iter__()
            return
        if self.processes:  # waits until the workers of the last epoch begin this one
            iterator = self._await(super().__iter__)
        else:
            others = multiprocessing.active_children()
            iterator = super().__iter__()
            self.processes = tuple(child for child in multiprocessing.active_children() if child not in others)
            _started.extend(self.processes)
        while (batch := self._await(partial(next, iterator, None))) is not None:
            yield batch

    def _await(self, function: Callable[[], Any]) -> Any:
        """What ``function`` returns or raises in a thread; ConnectionError where it waits for a worker in vain."""
        result = _start(function)
        try:
            polls = 0
            while not wait([result], _POLL_SECONDS).done:
                polls += 1
                self._check_workers(polls)
            return result.result()
        except BaseException as error:
            # what torch says of a dead worker, and what reading from one gives that dies while it hands over a batch
            lost = isinstance(error, EOFError | ConnectionError) or str(error).startswith("DataLoader worker")
            if lost:
                self._name_the_dead()
            elif not wait([result], _POLL_SECONDS).done:
                self._give_up()
            if lost and type(error) is not ConnectionError:  # its process is not known
                raise ConnectionError(f"a loader process has ended ({error!r}); {_CURE}") from None
            raise

    def _give_up(self) -> None:
        """End the workers, and keep torch from doing so: it waits without end for a lock that a killed one held."""
        for process in self.processes:
            process.kill()
        iterator: Any = self._iterator
        if iterator is not None and not iterator._shutdown:
            iterator._shutdown = True
            signal_handling._remove_worker_pids(id(iterator))  # a later loader may get the same id

    def _name_the_dead(self) -> None:
        """Raise ConnectionError naming the worker that has died: the system tells its end after closing its files."""
        ready = connection.wait([process.sentinel for process in self.processes], _POLL_SECONDS)
        for process in self.processes:
            if process.sentinel in ready:
                process.join(_POLL_SECONDS)
        try:
            self._check_workers(0)
        finally:
            self._give_up()

    def _check_workers(self, polls: int) -> None:
        for process in self.processes:
            if not process.is_alive():
                code = process.exitcode or 0
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                memory = ", which the system sends when memory runs out" if code == -signal.SIGKILL else ""
                raise ConnectionError(f"a loader process (pid {process.pid}) {how}{memory}; {_CURE}")
        if polls >= _MOST_POLLS or (polls >= _POLLS_AFTER_SIGNAL and self.asked_to_stop()):
            silence = f"no batch from the loader processes for {polls * _POLL_SECONDS:.0f} s"
            raise ConnectionError(f"{silence}: can the data set be read? {_CURE}")


def _start(function: Callable[[], Any]) -> "Future[Any]":
    """Call in a thread that does not outlast the process, even if it waits for ever."""
    result: Future[Any] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return result


@atexit.register  # runs before multiprocessing's own function, which waits for its children without end
def _end_workers() -> None:
    alive = [process for process in _started if process.is_alive()]
    for process in alive:
        process.terminate()
    for process in alive:
        process.join(_POLL_SECONDS)
        process.kill()  # also one that is stopped


def collate_shared(collate: Callable[[Any], Any], samples: Any) -> Any:
    """Collate samples to a batch in shared memory, in a worker. Raises ConnectionError where that memory is full.

    torch moves batches there in a thread whose errors lose the batch; here they reach the training process.
    """
    batch = collate(samples)
    try:
        for tensor in (batch.images, *batch.targets.values()):
            tensor.share_memory_()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConnectionError(f"no shared memory for a batch ({reason}); {_CURE}") from None
    return batch


def require_resources(workers: int, batch_bytes: int, tensors: int, ranks: int) -> None:
    """Raise ValueError where shared memory or open files are too few for the workers of ``ranks`` processes.

    ``batch_bytes``: of one rank's share of a batch, in ``tensors`` tensors. Raises the soft limit of open files.
    """
    batches = 2 * workers + _BATCHES_IN_USE
    needed, free = batches * batch_bytes * ranks, free_shared_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{workers * ranks} loader processes need {needed / 1e6:.0f} MB of shared memory, /dev/shm has "
            f"{free / 1e6:.0f} MB; start the container with a larger --shm-size (docker), or {_CURE}"
        )
    files = _OPEN_FILES + 4 * workers + tensors * (_BATCHES_IN_USE + 2)
    allowed = allow_open_files(files)
    if allowed < files:
        raise ValueError(
            f"{workers} loader processes need {files} open files, the limit is {allowed} (ulimit -n); raise it, or "
            f"{_CURE}"
        )


def init_worker(_: int) -> None:
    """Settings of a worker: one thread, and signals of the training process only."""
    cv2.setNumThreads(0)  # the workers already use all cores
    keep_freed_memory()  # every sample needs arrays of the same sizes
    # Terminals and torchrun send signals to the whole process group. The main process then finishes its step, for
    # which it needs the loader: a worker ignores these signals and accepts SIGTERM from the main process only.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm_from, args=(os.getppid(),), daemon=True).start()


def _exit_on_sigterm_from(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
