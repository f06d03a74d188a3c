"""What a trace of torch.profiler says about who waits for whom. Times in microseconds, as in the file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
ON_HOST = ("cuda_runtime", "cuda_driver")
WAITING = {
    "cudaStreamSynchronize and the like": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy"),
    "cudaEventSynchronize": ("cudaEventSynchronize",),
    "cudaMemcpyAsync": ("cudaMemcpyAsync",),
}
"""kinds of calls in which the host may wait: the first is what item() and copies to the host end in, and a copy from
memory that is not pinned waits inside the last"""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Waiting:
    """Shares of the window from the first call that launches something to the end of the last one."""

    idle: float
    """of it in which the GPU does nothing"""
    waits: dict[str, float]
    """by kind of call, in which the host is in one of them"""
    waits_while_idle: float
    """in which the host is in any of them and the GPU does nothing"""
    busy_per_step: float
    """[microseconds] that the GPU works on what one step launches"""
    launches_per_step: float
    kernels: list[dict[str, Any]]
    """those that take most of the GPU's time: name, calls and microseconds a step, share of the GPU's busy time"""


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The events of a file that ``export_chrome_trace`` wrote."""
    content = json.loads(path.read_text(encoding="utf-8", errors="replace"), strict=False)
    events: list[dict[str, Any]] = content["traceEvents"]
    return events


def analyse(events: Iterable[dict[str, Any]], steps: int, top: int = 15) -> Waiting:
    """Raises ValueError where the trace has no kernels or no calls that launch them."""
    complete = [event for event in events if event.get("ph") == "X"]
    calls = [event for event in complete if event.get("cat") in ON_HOST]
    launched = [event for event in calls if "Launch" in event["name"]]
    # work that was launched before the window, but done in it, keeps the GPU busy and belongs to no step of it
    own = {event.get("args", {}).get("correlation") for event in calls}
    gpu = [event for event in complete if event.get("cat") in ON_GPU]
    of_steps = [event for event in gpu if event.get("args", {}).get("correlation") in own]
    if not launched or not of_steps:
        raise ValueError(f"the profiler saw {len(launched)} launches and {len(of_steps)} kernels and copies of theirs")
    window = min(_interval(event)[0] for event in launched), max(_interval(event)[1] for event in launched)
    busy = _clipped(gpu, window)
    waits = {kind: _clipped((e for e in calls if e["name"] in names), window) for kind, names in WAITING.items()}
    every_wait = [interval for intervals in waits.values() for interval in intervals]
    length = window[1] - window[0]
    idle = length - covered(busy)
    # |A and not B| = |A or B| - |B|
    while_idle = covered(every_wait + busy) - covered(busy)
    return Waiting(
        idle / length,
        {kind: covered(intervals) / length for kind, intervals in waits.items()},
        while_idle / length,
        covered([_interval(event) for event in of_steps]) / steps,
        len(launched) / steps,
        _dearest(of_steps, steps, top),
    )


def covered(intervals: Sequence[Interval]) -> float:
    """Length of the union."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _interval(event: dict[str, Any]) -> Interval:
    start = float(event["ts"])
    return start, start + float(event.get("dur", 0))


def _clipped(events: Iterable[dict[str, Any]], window: Interval) -> list[Interval]:
    pairs = [_interval(event) for event in events]
    clipped = [(max(start, window[0]), min(stop, window[1])) for start, stop in pairs]
    return [(start, stop) for start, stop in clipped if stop > start]


def _dearest(events: Sequence[dict[str, Any]], steps: int, top: int) -> list[dict[str, Any]]:
    durations: dict[str, list[float]] = defaultdict(list)
    for event in events:
        durations[event["name"]].append(float(event.get("dur", 0)))
    whole = sum(sum(values) for values in durations.values()) or 1.0
    ranked = sorted(durations.items(), key=lambda item: -sum(item[1]))[:top]
    return [
        {
            "name": name[:160],
            "calls": len(values) / steps,
            "microseconds": sum(values) / steps,
            "share": sum(values) / whole,
        }
        for name, values in ranked
    ]
