"""Time and memory of the evaluator, on frames that this script makes.

    python tools/bench/evaluator.py                        # 3769 frames, 3 classes, files included
    python tools/bench/evaluator.py --frames 500 --json bench.json

Warm: evaluate_kitti() again in one process. Fresh: the whole command tools/evaluate_kitti.py, start of Python and
imports included, with numba's cache filled. First: the same with an empty cache. Growth: warm time of four times the
frames over that of one, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.evaluation import evaluate_kitti
from lib.system.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
_TYPES = ("Car", "Pedestrian", "Cyclist", "Van", "Truck", "Misc")
_SHARES = (0.62, 0.15, 0.06, 0.07, 0.05, 0.05)
_SIZES = {"Car": (1.5, 1.6, 3.9), "Pedestrian": (1.7, 0.6, 0.8), "Cyclist": (1.7, 0.6, 1.8)}
_BARS = {"warm_s": 1.0, "fresh_s": 3.0, "first_s": 20.0, "peak_mb": 250.0, "growth_4x": 4.4}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description="Time and memory of the evaluator on generated frames.")
    parser.add_argument("--frames", type=int, default=3769, help="default: 3769, those of the val split")
    parser.add_argument("--repeats", type=int, default=5, help="warm runs; the median counts")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_frames(root / "once", args.frames, seed=0)
        make_frames(root / "four", 4 * args.frames, seed=1)
        figures = measure(root, args.repeats)
    print(f"{args.frames} frames, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for name, value in figures.items():
        bar = f"  bar {_BARS[name]:g}{'' if value <= _BARS[name] else '  MISSED'}" if name in _BARS else ""
        print(f"{name:<12}{value:9.2f}{bar}")
    if args.json is not None:
        with atomic_write(args.json) as file:
            file.write((json.dumps({"frames": args.frames, **figures}, indent=1) + "\n").encode())
    return int(any(figures[name] > bar for name, bar in _BARS.items()))


def measure(root: Path, repeats: int) -> dict[str, float]:
    """All figures for the folders ``once`` and ``four`` under ``root``."""
    cache = root / "numba"
    first_s, first_peak_mb = _run_command(root / "once", cache)
    fresh_s, fresh_peak_mb = _run_command(root / "once", cache)
    _time_warm(root / "once", 1)
    warm = _time_warm(root / "once", repeats)
    four = _time_warm(root / "four", repeats)
    return {
        "first_s": first_s,
        "fresh_s": fresh_s,
        "peak_mb": max(first_peak_mb, fresh_peak_mb),
        "warm_s": statistics.median(warm),
        "warm_best_s": min(warm),
        "four_s": statistics.median(four),
        "growth_4x": min(four) / min(warm),  # the fastest runs: the others contain what else the machine did
    }


def _run_command(frames: Path, cache: Path) -> tuple[float, float]:
    """Seconds and peak resident memory [MB] of the command in a new process."""
    command = [sys.executable, str(ROOT / "tools" / "evaluate_kitti.py")]
    command += ["--labels", str(frames / "label_2"), "--results", str(frames / "data")]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, stdout=subprocess.DEVNULL, cwd=ROOT
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    return seconds, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def _time_warm(frames: Path, repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        evaluate_kitti(frames / "label_2", frames / "data")
        seconds.append(time.perf_counter() - start)
    return seconds


def make_frames(root: Path, n_frames: int, seed: int) -> None:
    """Write ``label_2`` and ``data``: about 7 labels and 12 detections a frame, as KITTI's val split has."""
    rng = np.random.default_rng(seed)
    (root / "label_2").mkdir(parents=True)
    (root / "data").mkdir()
    for frame in range(n_frames):
        labels, detections = [], []
        for _ in range(rng.poisson(5.2)):
            name = str(rng.choice(_TYPES, p=_SHARES))
            box = _random_box(rng, name)
            labels.append(f"{name} {rng.choice([0, 0, 0.2, 0.4])} {rng.integers(0, 3)} {_text(box)}")
            if name in _SIZES and rng.random() < 0.8:
                moved = box + rng.normal(size=12) * np.array([0.1, *[2] * 4, *[0.05] * 3, 0.2, 0.05, 0.5, 0.1])
                detections.append(f"{name} 0.0 0 {_text(moved)} {rng.beta(4, 2):.2f}")
        for _ in range(rng.poisson(9)):
            name = str(rng.choice(list(_SIZES)))
            detections.append(f"{name} 0.0 0 {_text(_random_box(rng, name))} {rng.beta(1, 4):.2f}")
        for _ in range(rng.poisson(1.8)):
            corner = rng.uniform((0, 150), (1150, 200))
            area = _text(np.array([*corner, *(corner + rng.uniform(15, 90, 2))]))
            labels.append(f"DontCare -1 -1 -10 {area} -1 -1 -1 -1000 -1000 -1000 -10")
        (root / "label_2" / f"{frame:06d}.txt").write_text("\n".join(labels) + "\n", encoding="ascii")
        (root / "data" / f"{frame:06d}.txt").write_text("\n".join(detections) + "\n", encoding="ascii")


def _random_box(rng: np.random.Generator, name: str) -> np.ndarray:
    """(12,): alpha, 2D box, sizes, location, rotation_y of an object on the road, seen by a KITTI-like camera."""
    height, width, length = np.array(_SIZES.get(name, (2.2, 1.9, 5.0))) * rng.normal(1, 0.07, 3)
    z = rng.uniform(5, 70)
    x, y = rng.uniform(-0.75, 0.75) * z, rng.normal(1.65, 0.1)
    u, v, scale = 610 + 720 * x / z, 173 + 720 * y / z, 720 / z
    turn = rng.uniform(-np.pi, np.pi)
    half = 0.5 * scale * max(width, length) * rng.uniform(0.5, 1)
    bbox = (max(u - half, 0), v - scale * height, min(u + half, 1241), min(v, 374))
    return np.array([turn, *bbox, height, width, length, x, y, z, turn])


def _text(numbers: np.ndarray) -> str:
    return " ".join(f"{number:.2f}" for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
