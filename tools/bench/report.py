"""How the benches measure and report: both sides in turn, medians, one table, one JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lib.system.files import atomic_write


def time_in_turn(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of ``repeats`` calls of each side, one after the other in turn, after one call that does not count.

    In turn, so that what else the machine does strikes all sides alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(repeats + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return seconds


Row = dict[str, Any]


def make_row(
    name: str,
    value: float | None,
    unit: str = "",
    ratio: float | None = None,
    bar: float | None = None,
    **more: Any,
) -> Row:
    """A row of a report.

    Args:
        value: None: it was not measured, and ``note`` says why.
        ratio: how many times better than the plain side.
        bar: what the ratio has to reach.
        more: for the JSON file alone, but for ``note``, which the table has too.
    """
    return {"name": name, "value": value, "unit": unit, "ratio": ratio, "bar": bar} | more


@dataclass
class Report:
    """Rows of a table: name, figure, unit, and what it is compared with."""

    title: str
    rows: list[Row] = field(default_factory=list)
    machine: str = ""
    """'' for the one that this runs on"""

    def add(self, name: str, value: float, unit: str, ratio: float | None = None, bar: float | None = None) -> None:
        """See :func:`make_row`."""
        self.rows.append(make_row(name, value, unit, ratio, bar))

    def add_sides(
        self, seconds: Mapping[str, list[float]], unit: str, per: float, bars: Mapping[str, float]
    ) -> None:
        """Medians of :func:`time_in_turn`; the first side is the plain one. ``per``: units of work in a call."""
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        plain = next(iter(medians.values()))
        for name, median in medians.items():
            value = median / per * (1000 if unit.startswith("ms") else 1)
            self.add(name, value, unit, plain / median, bars.get(name))

    def show(self, json_file: Path | None) -> int:
        """Print, write, and return 1 where a bar is missed."""
        print(f"\n{self.title}\n{self.machine or machine()}")
        width = max([44, *(len(row["name"]) for row in self.rows)])
        for row in self.rows:
            print(_line(row, width))
        if json_file is not None:
            self.write(json_file)
            print(f"written: {json_file}")
        return int(any(_missed(row) for row in self.rows))

    def write(self, json_file: Path) -> None:
        """The JSON file alone."""
        content = {"title": self.title, "machine": self.machine or machine(), "rows": self.rows}
        with atomic_write(json_file) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())


def _missed(row: Row) -> bool:
    return row["bar"] is not None and row["ratio"] is not None and row["ratio"] < row["bar"]


def _line(row: Row, width: int) -> str:
    note = row.get("note", "")
    if row["value"] is None:
        return f"  {row['name']:<{width}}  {note}"
    ratio = f"{row['ratio']:8.2f} x" if row["ratio"] is not None else " " * 10
    bar = f"   bar {row['bar']:g} x{'  MISSED' if _missed(row) else ''}" if row["bar"] is not None else ""
    line = f"  {row['name']:<{width}}{row['value']:12.4g} {row['unit']:<12}{ratio}{bar}"
    return f"{line}  ({note})" if note else line


def machine() -> str:
    """Processor, threads, GPU and versions, in a line."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}"
