"""How the benches measure and report: both sides alternate, medians count, one table, one JSON file."""

import contextlib
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lib.ops.text_table import text_table
from lib.system.files import write_json


@dataclass(frozen=True)
class Row:
    """One figure of a report."""

    name: str
    value: float | None
    """None: not measured, for the reason in ``note``"""
    unit: str = ""
    ratio: float | None = None
    """how many times better than the plain side"""
    bar: float | None = None
    """smallest ratio that is accepted"""
    note: str = ""

    @property
    def missed(self) -> bool:
        return self.bar is not None and self.ratio is not None and self.ratio < self.bar

    def cells(self) -> list[str]:
        value = "-" if self.value is None else f"{self.value:.4g}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        bar = "" if self.bar is None else f"bar {self.bar:g} x{' MISSED' if self.missed else ''}"
        return [self.name, value, self.unit, ratio, bar]


@dataclass
class Report:
    """Figures, and the machine that they were measured on."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def add_sides(
        self, seconds: Mapping[str, list[float]], unit: str, per: float, bars: Mapping[str, float]
    ) -> None:
        """Add the medians of :func:`time_in_turn`; the first side is the plain one.

        ``per``: images (or other units of work) of one call. ``bars``: smallest accepted ratio by name.
        """
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        plain = next(iter(medians.values()))
        for name, median in medians.items():
            value = median / per * (1000 if unit.startswith("ms") else 1)
            self.rows.append(Row(name, value, unit, plain / median, bars.get(name)))

    def show(self, json_file: Path | None) -> int:
        """Print the table and write the JSON file. Returns 1 if a bar is missed, otherwise 0."""
        table = text_table([row.cells() for row in self.rows]).split("\n")
        lines = [f"{line}  {row.note}".rstrip() for line, row in zip(table, self.rows, strict=True)]
        print("\n".join(["", self.title, describe_machine(), *lines]))
        if json_file is not None:
            self.write(json_file)
            print(f"written: {json_file}")
        return int(any(row.missed for row in self.rows))

    def write(self, json_file: Path) -> None:
        """Write the JSON file."""
        rows = [asdict(row) for row in self.rows]
        write_json(json_file, {"title": self.title, "machine": describe_machine(), "rows": rows})


def describe_machine() -> str:
    """Processor, threads, GPU and version of torch, on one line."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}"


def time_in_turn(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of ``repeats`` calls of each side, after one call of each that does not count.

    The sides alternate, so that other load on the machine affects all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(repeats + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return seconds


class Side:
    """One side of a comparison in a process of its own: the other side's memory and settings do not affect it.

    The process calls ``make(*arguments)``, which must be picklable, and calling the Side calls its result there.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self.process.start()
        self.pipe.recv()  # until it is ready

    def __call__(self) -> None:
        self.pipe.send("run")
        self.pipe.recv()

    def measure_peak(self) -> float:
        """Peak memory of two calls [MB], less what the process had before the first call."""
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
    """Peak memory of the GPU if there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    # ru_maxrss only as a last resort: a process inherits that value from its parent
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
