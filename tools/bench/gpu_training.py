"""Sections of tools/bench/gpu.py about the training step alone, on a batch that does not change."""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.engine.step import Figures, prefetch
from tools.bench.gpu_job import (
    NO_DEVICE,
    Job,
    allocated_megabytes,
    attempt,
    not_measured,
    precision,
    seconds_in_a_row,
    wait,
)
from tools.bench.network import Bench
from tools.bench.report import Row, make_row


@dataclass(frozen=True)
class Variant:
    """A way to train."""

    name: str
    plain: bool = False
    amp: bool = False
    compile: bool = False
    tf32: bool = False
    """in float32 convolutions"""
    benchmark: bool = False
    """cuDNN tries its algorithms and keeps the fastest"""

    @property
    def needs_gpu(self) -> bool:
        """Whether it differs from another variant on a GPU alone."""
        return self.compile or self.benchmark or (self.tf32 and not self.amp)


PLAIN = Variant("plain float32", plain=True)
FLOAT32 = Variant("float32")
TF32 = Variant("float32, TF32 convolutions", tf32=True)
AMP = Variant("amp bf16", amp=True, tf32=True)
EVERYWHERE = (PLAIN, FLOAT32, AMP)
ONCE = (
    Variant("plain float32, TF32 convolutions", plain=True, tf32=True),
    TF32,
    Variant("amp bf16, cudnn.benchmark", amp=True, tf32=True, benchmark=True),
)
COMPILED = Variant("amp bf16 + compile", amp=True, compile=True, tf32=True)
COMPILED_BENCHMARK = Variant("amp bf16 + compile, cudnn.benchmark", amp=True, compile=True, tf32=True, benchmark=True)
WARM_UP = 3


def product(job: Job) -> Iterator[Row]:
    """The rate of a large matrix product in bfloat16."""
    n, name = job.sizes.product, f"bf16 matrix product, {job.sizes.product}^3"
    if not job.cuda:
        yield not_measured(name, NO_DEVICE)
        return
    device = job.begin()
    # not zeros: they run faster than real data
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    run = partial(torch.mm, a, b, out=out)
    seconds_in_a_row(run, 20, device)
    seconds = statistics.median(seconds_in_a_row(run, 200, device))
    yield make_row(name, 2 * n**3 / seconds / 1e12, "TFLOP/s", kind="product")


def training(job: Job) -> Iterator[Row]:
    """Samples per second and peak memory, without compilation."""
    first = job.sizes.batches[0]
    for batch in job.sizes.batches:
        yield from _variants(job, batch, EVERYWHERE + ONCE if batch == first else EVERYWHERE, 10)
    name = "synchronising operations in a step"
    if job.cuda:
        yield from attempt(job, name, partial(synchronisations, job, name))
    else:
        yield not_measured("peak memory, training", NO_DEVICE)
        yield not_measured(name, NO_DEVICE)


def compiled_training(job: Job) -> Iterator[Row]:
    """The same with ``trainer.compile``. The smallest batch first, then the one that fills a GPU best."""
    first, *others = job.sizes.batches
    compilation = 45.0  # a guess, until the first one is measured
    for batch, variant in [(first, COMPILED), (first, COMPILED_BENCHMARK), *((n, COMPILED) for n in reversed(others))]:
        start = time.perf_counter()
        yield from _variants(job, batch, [variant], compilation)
        if variant == COMPILED:
            compilation = max(compilation, time.perf_counter() - start)


def _variants(job: Job, batch: int, variants: Sequence[Variant], seconds: float) -> Iterator[Row]:
    for variant in variants:
        name = _rate_name(variant, batch)
        if variant.needs_gpu and not job.cuda:
            yield not_measured(name, NO_DEVICE)
        else:
            yield from attempt(job, name, partial(measure, job, variant, batch), seconds)


def _rate_name(variant: Variant, batch: int) -> str:
    return f"training, {variant.name}, batch {batch}"


def measure(job: Job, variant: Variant, batch: int) -> list[Row]:
    """Rows of one variant. What they are compared with: see ``tools/bench/gpu.py``'s ``compare``."""
    device = job.begin()
    with precision(variant.tf32, variant.benchmark):
        bench = Bench(job.config(batch, variant.amp, variant.compile), batch, device=device)
        step = bench.plain_training() if variant.plain else pipelined(bench.start_step(), prefetch(device))
        before = allocated_megabytes(job)
        start = time.perf_counter()
        step()
        wait(device)
        first = time.perf_counter() - start
        seconds_in_a_row(step, WARM_UP, device)
        if job.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(seconds_in_a_row(step, job.sizes.steps, device))
        peak = allocated_megabytes(job, peak=True) - before
    name, plain = _rate_name(variant, batch), _rate_name(PLAIN, batch)
    ours = not variant.plain and not variant.benchmark  # which no key of a configuration switches on
    facts: dict[str, Any] = {"kind": "training", "ours": ours, "variant": variant.name, "batch": batch}
    facts |= {"milliseconds": 1000 * seconds, "first_step_seconds": first}
    rows = [make_row(name, batch / seconds, "samples/s", against=plain, better="more", **facts)]
    if job.cuda:
        facts = {"against": f"peak memory, {plain}", "better": "less"}
        bar = job.bar(1.0) if ours else None
        rows.append(make_row(f"peak memory, {name}", peak / batch, "MB/image", bar=bar, **facts))
    return rows


def synchronisations(job: Job, name: str) -> list[Row]:
    """Operations of this code's step that have the host wait until the GPU has done all that it was given, and the
    lines that call them. Waiting for an event, as the figures do, is none of them.
    """
    bench = Bench(job.config(job.sizes.batches[0], amp=True), job.sizes.batches[0], device=job.begin())
    step = pipelined(bench.start_step(), 1)
    for _ in range(WARM_UP):
        step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = Counter(f"{w.filename}:{w.lineno}" for w in caught if "synchronizing CUDA operation" in str(w.message))
    places = [f"{count} x {place}" for place, count in found.most_common()]
    return [make_row(name, sum(found.values()), "", note=", ".join(places[:3]), places=places)]


def pipelined(start: Callable[[], Figures], ahead: int) -> Callable[[], None]:
    """Steps as the training loop has them: their figures are read ``ahead`` steps late."""
    pending: deque[Figures] = deque()

    def step() -> None:
        pending.append(start())
        while len(pending) > ahead:
            pending.popleft().read()

    return step


def flops(job: Job) -> Iterator[Row]:
    """Floating-point operations of a step, for the utilisation. Shapes tell them, so the CPU will do."""
    batch = 2
    bench = Bench(job.config(batch), batch, device=torch.device("cpu"))
    count = flops_of(bench.training()) / batch
    yield make_row("FLOPs of a training image", count / 1e9, "GFLOP", kind="flops")


def flops_of(run: Callable[[], object]) -> int:
    """Of all matrix products and convolutions in ``run``, a multiplication and an addition being two."""
    own = {torch.ops.aten.convolution_backward: _backward_flops}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        run()
    return counter.get_total_flops()


def _backward_flops(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """As many as forward for the gradient of the input, and as many for that of the weight.

    torch's own formula (2.11, 2.14) has the latter once for every group, which is too much for the neck's depthwise
    upsampling: 2 % of all.
    """
    positions = x_shape[2:] if transposed else grad_shape[2:]
    forward = 2 * prod(weight_shape) * prod(positions) * x_shape[0]
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def numerics(job: Job) -> Iterator[Row]:
    """How far the loss terms of a step are from float32's, on the same batch and weights."""
    reference = terms(job, FLOAT32)
    for variant in (TF32, AMP):
        name = f"largest relative difference of a loss term, {variant.name}"
        if variant.needs_gpu and not job.cuda:
            yield not_measured(name, NO_DEVICE)
        else:
            yield from attempt(job, name, partial(_difference, job, variant, name, reference))


def _difference(job: Job, variant: Variant, name: str, reference: dict[str, float]) -> list[Row]:
    values = terms(job, variant)
    # a term near 0 has no relative error worth the name
    parts = {term: abs(values[term] - value) / max(abs(value), 1e-3) for term, value in reference.items()}
    return [make_row(name, max(parts.values()), "", terms=parts, float32=reference)]


def terms(job: Job, variant: Variant) -> dict[str, float]:
    """Loss terms and their total of the first step."""
    batch = job.sizes.batches[0]
    with precision(variant.tf32):
        bench = Bench(job.config(batch, variant.amp), batch, device=job.begin())
        values, _, _ = bench.training()()
    return values
