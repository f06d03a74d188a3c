"""All that this project claims about GPUs, measured in one call of at most nine minutes on one H100 or H200.

    python tools/bench/gpu.py --json gpu.json
    python tools/bench/gpu.py --only product training flops --json gpu.json
    python tools/bench/gpu.py --quick --device cpu            # whether the script works, where there is no GPU

Every section runs in a process of its own, which is stopped when its time is up. The JSON file is written after every
row, so a call that is cut short keeps what it has. What could not be measured is a row that says why. Plain is the
float32 step in the way of the official code, without TF32 (see tools/bench/network.py).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.system.commands import run_command
from tools.bench.gpu_job import OUT_OF_TIME, Job, failure, not_measured
from tools.bench.report import Report, Row, machine, make_row

SECTIONS: dict[str, tuple[str, float]] = {
    "product": ("tools.bench.gpu_training:product", 60),
    "training": ("tools.bench.gpu_training:training", 170),
    "flops": ("tools.bench.gpu_training:flops", 60),
    "numerics": ("tools.bench.gpu_training:numerics", 60),
    "loop": ("tools.bench.gpu_loop:loop", 120),
    "inference": ("tools.bench.gpu_inference:inference", 150),
    "compiled": ("tools.bench.gpu_training:compiled_training", 170),
    "compiled_loop": ("tools.bench.gpu_loop:compiled_loop", 120),
}
"""by name: what it runs, and the most seconds of :data:`LIMIT` that it gets. What is dearest comes last"""
LIMIT = 540.0
SPEEDUP, UTILISATION = 5.0, 0.4
"""bars: times the plain step's samples per second; share of the matrix product's rate"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a section failed or a bar is missed, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="auto: CUDA if there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does the script work?")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="of the whole call (default 540)")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    return run_command(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """All sections, one after the other. Raises ValueError or OSError for bad input."""
    end = time.time() + args.limit
    here = torch.cuda.is_available()
    if args.device == "cuda" and not here:
        raise ValueError("--device cuda: torch finds no CUDA device here; accepted are auto and cpu")
    device = "cuda" if here and args.device != "cpu" else "cpu"
    names = [name for name in SECTIONS if args.only is None or name in args.only]
    report = Report(f"GPU figures{', tiny sizes' if args.quick else ''}, on {device.upper()}", machine="unknown")
    if args.json is not None:
        report.write(args.json)  # a place that cannot be written to is known now
    measured: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            section, most = SECTIONS[name]
            seconds = min(most * args.limit / LIMIT, end - time.time())
            print(f"section {name}, at most {max(seconds, 0):.0f} s", flush=True)
            job = Job(device, args.quick, Path(folder), time.time() + seconds)
            for item in rows_of(name, section, job):
                if isinstance(item, str):
                    report.machine = item
                    continue
                measured.append(item | {"section": name})
                report.rows = compare(measured) + headlines(measured, job)
                if args.json is not None:
                    report.write(args.json)
    missed = report.show(args.json)
    return int(missed or any(row.get("failed") for row in measured))


def rows_of(name: str, section: str, job: Job) -> Iterator[Row | str]:
    """Rows of a section that runs in a process of its own until ``job.until``, and at its end a line on the machine.

    ``section``: 'module:function'. A section that raises, dies or is stopped ends with a row that says so.
    """
    if job.seconds_left() <= 0:
        yield not_measured(f"section {name}", OUT_OF_TIME)
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, name, section, job))
    process.start()
    theirs.close()  # else the end of the process would not end the pipe
    try:
        while True:
            if not ours.poll(max(0.0, job.seconds_left())):
                yield failure(f"section {name}", "stopped, its time is up")
                return
            try:
                item = ours.recv()
            except EOFError:
                process.join()
                yield failure(f"section {name}", f"its process ended with exit status {process.exitcode}")
                return
            yield item
            if isinstance(item, str):
                process.join(20)
                return
    finally:
        _end(process)


def _serve(pipe: Connection, name: str, section: str, job: Job) -> None:
    os.setpgrp()  # so that its loaders and compilers can be ended with it
    try:
        module, _, function = section.partition(":")
        for row in getattr(importlib.import_module(module), function)(job):
            pipe.send(row)
    except Exception as error:  # whatever it is, it must not cost the other sections
        traceback.print_exc()
        pipe.send(failure(f"section {name}", error))
    pipe.send(machine())


def _end(process: BaseProcess) -> None:
    """End a process and its group, if it is still there."""
    if process.is_alive() and process.pid is not None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet
            process.kill()
    with contextlib.suppress(ValueError):
        process.join()


def compare(rows: Sequence[Row]) -> list[Row]:
    """The same rows, with the ratio of those that name another row which they are ``against``."""
    values = {row["name"]: row["value"] for row in rows}
    compared = []
    for row in rows:
        other = values.get(row.get("against"))
        if row["value"] and other:
            ratio = row["value"] / other
            compared.append(row | {"ratio": ratio if row["better"] == "more" else 1 / ratio})
        else:
            compared.append(row)
    return compared


def headlines(rows: Sequence[Row], job: Job) -> list[Row]:
    """The best step against the plain one, and against the rate of the matrix product."""
    steps = [row for row in rows if row.get("kind") == "training" and row["value"]]
    ours = sorted((row for row in steps if row["ours"]), key=lambda row: -row["value"])
    found = []
    batch = job.sizes.batches[0]
    plain = next((row for row in steps if row["name"] == f"training, plain float32, batch {batch}"), None)
    best = next((row for row in ours if row["batch"] == batch), None)
    if plain and best:
        ratio = best["value"] / plain["value"]
        name = f"best step at batch {batch}: {best['variant']}"
        found.append(make_row(name, best["value"], "samples/s", ratio, job.bar(SPEEDUP)))
    rate, work = (next((r["value"] for r in rows if r.get("kind") == kind), None) for kind in ("product", "flops"))
    if ours and rate and work:
        achieved = ours[0]["value"] * work / 1000
        name = f"utilisation, best: {ours[0]['variant']}, batch {ours[0]['batch']}"
        note = "of the matrix product's rate"
        found.append(make_row(name, achieved, "TFLOP/s", achieved / rate, job.bar(UTILISATION), note=note))
    return found


if __name__ == "__main__":
    sys.exit(main())
