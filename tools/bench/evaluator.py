"""Time and memory of the evaluator, on frames that this script makes.

    python tools/bench/evaluator.py                        # 3769 frames, 3 classes, files included
    python tools/bench/evaluator.py --frames 500 --json bench.json
    python tools/bench/evaluator.py --before OLD/lib/evaluation        # beside an older version of the folder

warm_s: evaluate_kitti() again in one process, median. fresh_s: the whole command tools/evaluate_kitti.py, start of
Python and imports included, with numba's cache filled. first_s: the same with an empty cache. peak_mb: resident memory
of that command, the most that numba's compilation needs. growth_4x: warm time of four times the frames over that of
one, the fastest runs of each. bootstrap_s, paired_s: the command with 1000 replicates over drives, and with --against;
bootstrap_mb: the most memory of all commands so far. over_before: warm time over that of the older version, in turn.
"""

import argparse
import importlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from timeit import repeat, timeit

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.evaluation import evaluate_kitti
from lib.ops.text import text_table
from lib.system.files import write_json

ROOT = Path(__file__).resolve().parents[2]
_SHARES = {"Car": 0.46, "Pedestrian": 0.11, "Cyclist": 0.05, "Van": 0.05, "Truck": 0.04, "Misc": 0.04, "DontCare": 0.25}
_SIZES = {"Car": (1.5, 1.6, 3.9), "Pedestrian": (1.7, 0.6, 0.8), "Cyclist": (1.7, 0.6, 1.8)}
_LIMITS = {
    **{"warm_s": 0.8, "fresh_s": 3.0, "first_s": 25.0, "peak_mb": 350.0, "growth_4x": 4.4},
    **{"bootstrap_s": 10.0, "paired_s": 20.0, "bootstrap_mb": 500.0, "over_before": 1.0},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description="Time and memory of the evaluator on generated frames.")
    parser.add_argument("--frames", type=int, default=3769, help="default: 3769, those of the val split")
    parser.add_argument("--repeats", type=int, default=5, help="warm runs")
    parser.add_argument("--before", type=Path, metavar="DIR", help="lib/evaluation of an older version")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), args.frames, args.repeats, args.before)
    print(f"{args.frames} frames, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    exceeded = [name for name, value in figures.items() if value > _LIMITS[name]]
    rows = [[k, f"{v:.2f}", f"limit {_LIMITS[k]:g}", "EXCEEDED" * (k in exceeded)] for k, v in figures.items()]
    print(text_table(rows))
    if args.json is not None:
        write_json(args.json, {"frames": args.frames, **figures})
    return int(bool(exceeded))


def measure(root: Path, n_frames: int, repeats: int, before: Path | None = None) -> dict[str, float]:
    """All figures; frames and numba's cache are written below ``root``."""
    once, four = root / "once", root / "four"
    make_frames(once, n_frames, seed=0)
    make_frames(four, 4 * n_frames, seed=1)
    first_s, fresh_s = (_time_command(once, root / "numba") for _ in range(2))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    options = ["--bootstrap", "--clusters", "drives"] if n_frames <= 7481 else ["--bootstrap"]
    _time_command(once, root / "numba", *options)  # compiles
    bootstrap_s = _time_command(once, root / "numba", *options)
    bootstrap_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    paired_s = _time_command(once, root / "numba", *options, "--against", str(once / "data"))
    folders = ((tree / "label_2", tree / "data") for tree in (once, four))
    (_, *warm), warm_four = (repeat(partial(evaluate_kitti, *pair), number=1, repeat=repeats + 1) for pair in folders)
    values = statistics.median(warm), fresh_s, first_s, peak_mb, min(warm_four) / min(warm)
    figures = dict(zip(_LIMITS, (*values, bootstrap_s, paired_s, bootstrap_mb), strict=False))
    return figures if before is None else {**figures, "over_before": _compare(once, before, repeats)}


def _time_command(frames: Path, numba_cache: Path, *options: str) -> float:
    """Seconds of the command in a new process."""
    command = [sys.executable, str(ROOT / "tools" / "evaluate_kitti.py")]
    command += ["--labels", str(frames / "label_2"), "--results", str(frames / "data"), *options]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(numba_cache)}
    run = partial(subprocess.run, command, env=environment, stdout=subprocess.DEVNULL, cwd=ROOT, check=True)
    return timeit(run, number=1)


def _compare(frames: Path, before: Path, repeats: int) -> float:
    """Median time of this version over that of the package in the folder ``before``, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(before, Path(folder) / "evaluator_before")
        sys.path.insert(0, folder)
        older = importlib.import_module("evaluator_before").evaluate_kitti
        sides = [partial(function, frames / "label_2", frames / "data") for function in (evaluate_kitti, older)]
        times = [[timeit(side, number=1) for side in sides] for _ in range(repeats + 1)][1:]
    own, theirs = (statistics.median(side) for side in zip(*times, strict=True))
    return own / theirs


def make_frames(root: Path, n_frames: int, seed: int) -> None:
    """Write ``label_2`` and ``data``: about 7 labels and 12 detections in a frame, as in KITTI's val split."""
    rng = np.random.default_rng(seed)
    for frame in range(n_frames):
        labels, detections = [], []
        for _ in range(rng.poisson(7)):
            name = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
            box = _random_box(rng, name)
            labels.append(f"{name} {rng.choice([0, 0, 0.2, 0.4])} {rng.integers(0, 3)} {_text(box)}")
            if name in _SIZES and rng.random() < 0.8:
                moved = box + rng.normal(size=12) * np.array([0.1, *[2] * 4, *[0.05] * 3, 0.2, 0.05, 0.5, 0.1])
                detections.append(f"{name} 0.0 0 {_text(moved)} {rng.beta(4, 2):.2f}")
        for _ in range(rng.poisson(9)):
            name = str(rng.choice(list(_SIZES)))
            detections.append(f"{name} 0.0 0 {_text(_random_box(rng, name))} {rng.beta(1, 4):.2f}")
        for part, lines in (("label_2", labels), ("data", detections)):
            (root / part).mkdir(parents=True, exist_ok=True)
            (root / part / f"{frame:06d}.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


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
