"""One side of a comparison in a process of its own, so that neither has the other's memory or settings."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Side:
    """Calling it runs once, over there, what ``make(*arguments)`` gives there; all of them must be picklable."""

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self.process.start()
        self.pipe.recv()  # it is ready

    def __call__(self) -> None:
        self.pipe.send("run")
        self.pipe.recv()

    def peak(self) -> float:
        """Most memory that two calls took, in MB, beyond what the process had before the first."""
        self()
        self()
        self.pipe.send("peak")
        return float(self.pipe.recv())

    def close(self) -> None:
        """End the process."""
        self.pipe.send("end")
        self.process.join()


def _serve(pipe: Any, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    run = make(*arguments)
    before = _peak_megabytes()
    pipe.send("ready")
    while (order := pipe.recv()) != "end":
        if order == "run":
            run()
        pipe.send(_peak_megabytes() - before)


def _peak_megabytes() -> float:
    """Of the GPU where there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    # not ru_maxrss where it can be helped: a process begins with that of the one which started it
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
