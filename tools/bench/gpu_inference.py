"""Section of tools/bench/gpu.py about inference: latency of one image, throughput of batches, memory, decoding."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tools.bench.gpu_job import (
    NO_DEVICE,
    Job,
    allocated_megabytes,
    attempt,
    not_measured,
    precision,
    seconds_in_a_row,
    seconds_one_by_one,
)
from tools.bench.network import Bench
from tools.bench.report import Row, make_row

Outputs = dict[str, Tensor]
PLAIN, FLOAT32, EAGER = "plain float32", "folded, true float32", "folded, torch's TF32 convolutions"
COMPILED, GRAPH = "torch.compile reduce-overhead", "CUDA graph"
"""all of this code's ways run the network with folded BatchNorm; the last three have torch's default precision"""
WARM_UP = 3
DECODED = 8
"""images that are decoded at once"""


def inference(job: Job) -> Iterator[Row]:
    """From images in the host's memory to the network's outputs on the device."""
    ways = (PLAIN, FLOAT32, EAGER) if job.cuda else (PLAIN, FLOAT32)  # a CPU has no TF32
    for way in ways:
        yield from attempt(job, _latency_name(way), partial(latency, job, way))
    yield from attempt(job, "decoding of 50 detections", partial(decoding, job))
    for batch in job.sizes.images:
        for way in ways:
            yield from attempt(job, _rate_name(way, batch), partial(throughput, job, way, batch))
    if not job.cuda:
        for name in (*map(_latency_name, (EAGER, GRAPH, COMPILED)), "peak memory, inference"):
            yield not_measured(name, NO_DEVICE)
        return
    for way, seconds in ((GRAPH, 10), (COMPILED, 45)):
        yield from attempt(job, _latency_name(way), partial(latency, job, way), seconds)


def _latency_name(way: str) -> str:
    return f"latency, {way}, batch 1"


def _rate_name(way: str, batch: int) -> str:
    return f"inference, {way}, batch {batch}"


def latency(job: Job, way: str) -> list[Row]:
    """Milliseconds from the call until the outputs are there."""
    device = job.begin()
    with precision(tf32=way not in (PLAIN, FLOAT32)):
        bench = Bench(job.config(1), 1, device=device)
        with precision(tf32=False):
            reference = forward(bench, FLOAT32)()["scores"]
        run = forward(bench, way)
        difference = float((run()["scores"] - reference).abs().max())
        seconds_one_by_one(run, WARM_UP, device)
        milliseconds = sorted(1000 * s for s in seconds_one_by_one(run, job.sizes.calls, device))
    name = _latency_name(way)
    p95 = milliseconds[min(len(milliseconds) - 1, round(0.95 * len(milliseconds)))]
    facts: dict[str, Any] = {"kind": "latency", "better": "less", "largest_difference_of_scores": difference}
    return [
        make_row(name, statistics.median(milliseconds), "ms", against=_latency_name(PLAIN), **facts),
        make_row(f"p95 of {name}", p95, "ms"),
    ]


def throughput(job: Job, way: str, batch: int) -> list[Row]:
    """Images per second, one batch after the other, and the memory that it takes."""
    device = job.begin()
    with precision(tf32=way not in (PLAIN, FLOAT32)):
        bench = Bench(job.config(batch), batch, device=device)
        run = forward(bench, way)
        before = allocated_megabytes(job)
        seconds_in_a_row(run, WARM_UP, device)
        if job.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(seconds_in_a_row(run, job.sizes.steps, device))
        peak = allocated_megabytes(job, peak=True) - before
    name, plain = _rate_name(way, batch), _rate_name(PLAIN, batch)
    rows = [make_row(name, batch / seconds, "images/s", against=plain, better="more", kind="inference")]
    if job.cuda:
        facts: dict[str, Any] = {"against": f"peak memory, {plain}", "better": "less"}
        bar = job.bar(1.0) if way != PLAIN else None
        rows.append(make_row(f"peak memory, {name}", peak / batch, "MB/image", bar=bar, **facts))
    return rows


def decoding(job: Job) -> list[Row]:
    """Outputs on the host to objects; and all from one image in the host's memory to its objects."""
    device = job.begin()
    rows = []
    for name, run, images in (
        ("decoding of 50 detections", Bench(job.config(DECODED), DECODED, device=device).decoding(), DECODED),
        ("image to detections, eager, batch 1", Bench(job.config(1), 1, device=device).inference(), 1),
    ):
        seconds_one_by_one(run, WARM_UP, device)
        seconds = statistics.median(seconds_one_by_one(run, job.sizes.calls, device))
        rows.append(make_row(name, 1000 * seconds / images, "ms/image"))
    return rows


def forward(bench: Bench, way: str) -> Callable[[], Outputs]:
    """What runs the network once in one of the ways, the images' transfer included."""
    if way == PLAIN:
        return _eager(bench.plain_network(), bench.normalised, bench.device)
    network = bench.folded_network()
    if way == COMPILED:
        fast = torch.compile(network, mode="reduce-overhead", dynamic=False)
        return _eager(fast, bench.images, bench.device)
    if way == GRAPH:
        return _graph(network, bench.images, bench.device)
    return _eager(network, bench.images, bench.device)


def _eager(network: Callable[[Tensor], Outputs], images: Tensor, device: torch.device) -> Callable[[], Outputs]:
    @torch.no_grad()
    def run() -> Outputs:
        return network(images.to(device, non_blocking=True))

    return run


@torch.no_grad()
def _graph(network: nn.Module, images: Tensor, device: torch.device) -> Callable[[], Outputs]:
    """The network's kernels, recorded once. The outputs are overwritten by the next call."""
    images = images.to(device)
    # torch asks for warm-up calls on another stream than the default one
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            network(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs: Outputs = network(images)

    def run() -> Outputs:
        images.copy_(images, non_blocking=True)
        graph.replay()
        return outputs

    return run
