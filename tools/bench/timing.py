"""How the benchmarks measure and report: both sides alternate, medians count, one table, one JSON file."""

import contextlib
import math
import multiprocessing
import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from lib.ops.text import text_table
from lib.system.files import write_json


@dataclass(frozen=True)
class Row:
    name: str
    value: float | None  # None: not measured, for the reason in ``note``
    unit: str = ""
    ratio: float | None = None  # how many times better than the first side
    note: str = ""

    def cells(self) -> list[str]:
        value = "-" if self.value is None else f"{self.value:.4g}"
        return [self.name, value, self.unit, "" if self.ratio is None else f"{self.ratio:.2f} x"]


@dataclass
class Report:
    """Figures, and the machine that they were measured on."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def time_sides(self, sides: Mapping[str, Callable[[], object]], repeats: int, unit: str, per: float) -> None:
        """Add the median time of ``repeats`` calls of each side, and its ratio to that of the first side.

        The sides alternate, so that other load on the machine affects all of them. The first call of each does not
        count. ``unit``: seconds or milliseconds per something, of which one call processes ``per``.
        """
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats + 1):
            for name, side in sides.items():
                start = perf_counter()
                side()
                seconds[name].append(perf_counter() - start)
        medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
        first = next(iter(medians.values()))
        for name, median in medians.items():
            self.rows.append(Row(name, median / per * (1000 if unit.startswith("ms") else 1), unit, first / median))

    def show(self, json_file: Path | None) -> None:
        """Print the table and write the JSON file."""
        table = text_table([row.cells() for row in self.rows]).split("\n")
        lines = [f"{line}  {row.note}".rstrip() for line, row in zip(table, self.rows, strict=True)]
        print("\n".join(["", self.title, describe_machine(), *lines]))
        if json_file is not None:
            self.write(json_file)
            print(f"written: {json_file}")

    def write(self, json_file: Path) -> None:
        """Write the JSON file."""
        rows = [asdict(row) for row in self.rows]
        write_json(json_file, {"title": self.title, "machine": describe_machine(), "rows": rows})


def describe_machine() -> str:
    """Processor, threads, GPU and version of torch, on one line."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        model = found[1] if found else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}"


class Side:
    """One side of a comparison in a process of its own: the other side's memory and settings do not affect it.

    The process calls ``make(*arguments)``, which must be picklable, and calling the Side calls its result there.
    """

    _run: Callable[[], object]  # in that process: the result of ``make``

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, initializer=_prepare, initargs=(make, arguments))
        self.memory = self.pool.submit(_peak_megabytes).result()

    def __call__(self) -> None:
        self.pool.submit(_call).result()

    def measure_peak(self) -> float:
        """Peak memory of two calls [MB], less what the process had before the first call."""
        self()
        self()
        return self.pool.submit(_peak_megabytes).result() - self.memory

    def close(self) -> None:
        """End the process."""
        self.pool.shutdown()


def _prepare(make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    Side._run = staticmethod(make(*arguments))


def _call() -> None:
    Side._run()


def _peak_megabytes() -> float:
    """Peak memory of the GPU if there is one, otherwise of this process; NaN on systems without /proc."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return math.nan
    # not ru_maxrss, which a process inherits from its parent
    return sum(int(kilobytes) for kilobytes in re.findall(r"VmHWM:\s*(\d+)", status)) * 1024 / 1e6
