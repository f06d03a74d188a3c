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

from lib.files import atomic_write


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


@dataclass
class Report:
    """Rows of a table: name, figure, unit, and what it is compared with."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, ratio: float | None = None, bar: float | None = None) -> None:
        """``ratio``: how many times better than the plain side; ``bar``: what the ratio has to reach."""
        self.rows.append({"name": name, "value": value, "unit": unit, "ratio": ratio, "bar": bar})

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
        print(f"\n{self.title}\n{machine()}")
        for row in self.rows:
            ratio = f"{row['ratio']:8.2f} x" if row["ratio"] is not None else " " * 10
            missed = row["bar"] is not None and row["ratio"] is not None and row["ratio"] < row["bar"]
            bar = f"   bar {row['bar']:g} x{'  MISSED' if missed else ''}" if row["bar"] is not None else ""
            print(f"  {row['name']:<44}{row['value']:12.4g} {row['unit']:<12}{ratio}{bar}")
        if json_file is not None:
            with atomic_write(json_file) as file:
                content = {"title": self.title, "machine": machine(), "rows": self.rows}
                file.write((json.dumps(content, indent=1) + "\n").encode())
            print(f"written: {json_file}")
        return int(any(r["bar"] and r["ratio"] is not None and r["ratio"] < r["bar"] for r in self.rows))


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
