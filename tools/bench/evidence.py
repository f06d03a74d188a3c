"""The experiment of docs/evidence.md: figures of runs into a CSV, the judgement of experiments/evidence/plan.md, power.

    python tools/bench/evidence.py collect runs/evidence --seeds 1-4   # adds these runs to docs/evidence/runs.csv
    python tools/bench/evidence.py judge --out runs/evidence           # table.md and arms.png of all runs in that file
    python tools/bench/evidence.py power --deviation 2.0 --difference 2

``collect`` adds the runs of tools/compare.py that are finished, with the figures of every bootstrap replicate, so that
the trainings may be made on several machines, one after the other.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.comparison.figures import MEDIAN_ERROR, ap_name, main_figures, read_figures
from lib.comparison.planning import PlannedRun, parse_seeds, plan_runs, read_arms
from lib.comparison.plot import plot_comparison
from lib.comparison.resampling import Resampled, resample_runs
from lib.comparison.statistics import summarize
from lib.comparison.table import Comparison
from lib.config import PROJECT_ROOT, dump_config, load_config
from lib.datasets import build_dataset
from lib.engine.checkpoint import read_checkpoint
from lib.engine.metrics import read_metrics
from lib.system.commands import run_command
from lib.system.files import atomic_write, write_file

EXPERIMENT = PROJECT_ROOT / "experiments" / "evidence"
PAGE = PROJECT_ROOT / "docs" / "evidence"
ARMS = ("monodle", "qi", "obj_depth", "ddml", "ddml_corrected", "ddml_scaled")
JUDGED = {ap_name("Car", "3d", "moderate", "loose"): 2.0, f"Car {MEDIAN_ERROR}": 0.05}
"""figure -> the smallest difference that matters"""
LOOKS = {8: 0.0052, 16: 0.0480}
"""pairs of seeds -> level of the tests at this look; O'Brien and Fleming's for two looks and 0.05 in total"""
POWER, N_REPLICATES = 0.8, 500
RUNS, EPOCHS, REPLICATES = "runs.csv", "epochs.csv", "replicates.npz"
LOSSES = ("heatmap", "offset_2d", "size_2d", "depth", "offset_3d", "size_3d", "heading", "quasi_isometric", "obj_depth")
Runs = dict[tuple[str, int], Mapping[str, float]]
Replicates = dict[tuple[str, int], Mapping[str, np.ndarray]]


class Verdict(NamedTuple):
    arm: str
    figure: str
    pairs: int
    difference: float
    low: float  # interval over seeds, like that of tools/compare.py
    high: float
    p: float  # of the paired t test, multiplied as Holm says
    answer: str  # 'better', 'worse', either 'by less than matters', 'no difference that matters', 'undecided'


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("runs", type=Path, metavar="DIR", help="the --out of tools/compare.py")
    collecting.add_argument("--seeds", required=True, metavar="N or M-N")
    collecting.add_argument("--page", type=Path, default=PAGE, metavar="DIR", help="default: %(default)s")
    judging = commands.add_parser("judge")
    judging.add_argument("--page", type=Path, default=PAGE, metavar="DIR", help="default: %(default)s")
    judging.add_argument("--out", type=Path, required=True, metavar="DIR")
    planning = commands.add_parser("power")
    planning.add_argument("--deviation", type=float, required=True, help="standard deviation of a pair's difference")
    planning.add_argument("--difference", type=float, required=True, help="the difference that is to be seen")
    args = parser.parse_args(argv)
    bodies = {"collect": collect, "judge": judge, "power": show_power}
    return run_command(lambda: bodies[args.command](args))


def collect(args: argparse.Namespace) -> None:
    """Add the finished runs to the files of the page; a run that is there already must have the same figures.

    Raises ValueError, before anything is written, for other figures, frames or settings than those of the page.
    """
    if not args.runs.is_dir():
        raise FileNotFoundError(f"{args.runs}: no such folder of a comparison")
    seeds = parse_seeds(args.seeds)
    if seeds[-1] > max(LOOKS):
        raise ValueError(f"--seeds: the plan has seeds 1 to {max(LOOKS)}, got {args.seeds}")
    arms, base = read_arms(EXPERIMENT / "arms.yaml", ARMS), EXPERIMENT / "batch16.yaml"
    planned = plan_runs(base, arms, seeds, [], ["trainer.gpu_ids=[]"], args.runs.resolve())
    runs = {(run.arm, run.seed): run for run in planned if run.finished}
    if not runs:
        raise ValueError(f"{args.runs}: none of the {len(planned)} runs is finished")
    figures = {}
    known, replicates, about = read_runs(args.page)
    for key, run in runs.items():
        run.require_same_configuration()
        figures[key] = read_figures(run)
        old = known.get(key, figures[key])
        if not all(np.array_equal(old.get(name, math.nan), v, equal_nan=True) for name, v in figures[key].items()):
            raise ValueError(f"{args.page / RUNS} has other figures of {_name(key)}")
    new = {key: run for key, run in runs.items() if key not in known}
    drawn = resample_runs([(run, figures[key]) for key, run in new.items()], N_REPLICATES)
    if len(drawn.runs) != len(new) or "has other figures" in drawn.description:
        raise ValueError(f"{args.runs}: replicates: {drawn.description}")
    common = list(describe_experiment(next(iter(new.values())), drawn).items()) if new else []
    common += [(f"weights of seed {seed}", hash_weights(run)) for (_, seed), run in new.items()]
    for name, value in common:
        if about.setdefault(name, value) != value:
            raise ValueError(f"{args.page / REPLICATES}: other {name}: {about[name]} (now {value})")
    for key, values in drawn.runs.items():
        known[key], replicates[key] = figures[key], {name: values[name].astype(np.float32) for name in JUDGED}
    write_runs(args.page, known, replicates, about)
    add_epochs(args.page / EPOCHS, epoch_rows(list(runs.values())))
    print(f"{len(runs)} of {len(planned)} runs are finished; {args.page / RUNS} has {len(known)}")


def describe_experiment(run: PlannedRun, drawn: Resampled) -> dict[str, str]:
    """What all runs must have in common: draws and frames of the bootstrap, settings but for arm and seed."""
    config = load_config(EXPERIMENT / "batch16.yaml")
    frames = build_dataset(run.config, run.config.tester.split)
    labels = "".join((frames.label_dir / f"{frame}.txt").read_text() for frame in frames.frame_ids)
    general = replace(config.general, dataroot="", exp_name="")
    arms = read_arms(EXPERIMENT / "arms.yaml", ARMS)
    settings = [dump_config(replace(config, general=general)), arms]
    texts = {"frames": " ".join(frames.frame_ids), "labels": labels, "settings": json.dumps(settings, sort_keys=True)}
    hashes = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
    return {"unit": drawn.unit, "draws": drawn.description, **hashes}


def hash_weights(run: PlannedRun) -> str:
    """Of the weights that the run started from, which another kind of CPU makes a little differently; '' if random."""
    path = run.config.trainer.pretrain_model
    weights = read_checkpoint(Path(path))["model_state"] if path else {}
    content = b"".join(value.numpy().tobytes() for _, value in sorted(weights.items()))
    return hashlib.sha256(content).hexdigest()[:16] if path else ""


def read_runs(page: Path) -> tuple[Runs, Replicates, dict[str, str]]:
    """Figures by (arm, seed), replicates of the judged ones, what all have in common; empty where there is no file."""
    if not (page / RUNS).exists():
        return {}, {}, {}
    with (page / RUNS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs: Runs = {}
    for line, row in enumerate(rows, 2):
        try:
            key, state = (row.pop("arm"), int(row.pop("seed"))), row.pop("state")
            values = {name: float(value or "nan") for name, value in row.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{page / RUNS}:{line}: not a row of runs.csv of tools/compare.py: {error!r}") from None
        runs |= {key: values} if state == "finished" else {}
    with np.load(page / REPLICATES) as stored:
        replicates = {key: dict(zip(JUDGED, stored[_name(key)], strict=True)) for key in runs}
        return runs, dict(replicates), json.loads(str(stored["about"]))


def write_runs(page: Path, runs: Runs, replicates: Replicates, about: Mapping[str, str]) -> None:
    """Write both files, ordered by seed."""
    seeds = tuple(sorted({seed for _, seed in runs}))
    arrays: dict[str, Any] = {_name(key): np.stack([replicates[key][name] for name in JUDGED]) for key in sorted(runs)}
    with atomic_write(page / REPLICATES) as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
    write_file(page / RUNS, Comparison(ARMS, seeds, runs).runs_to_csv().encode())


def _name(key: tuple[str, int]) -> str:
    return f"{key[0]}_seed{key[1]}"


def epoch_rows(runs: Sequence[PlannedRun]) -> list[list[object]]:
    """Of each epoch of each run: the losses, and the share of steps in which the quasi-isometric loss was exactly 0."""
    rows: list[list[object]] = []
    for run in runs:
        for record in read_metrics(run.folder / "metrics.jsonl"):
            zero = record.get("zero_share", {}).get("quasi_isometric", 0.0) if run.config.general.qi else ""
            losses = [record["losses"].get(name, "") for name in LOSSES]
            rows.append([run.arm, run.seed, record["epoch"], zero, *losses])
    return rows


def add_epochs(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Add rows of :func:`epoch_rows` to a CSV file; those of a run that is there already are replaced."""
    new = {(str(arm), str(seed)) for arm, seed, *_ in rows}
    old = list(csv.reader(path.open(newline="")))[1:] if path.exists() else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "epoch", "share of steps with quasi_isometric 0", *LOSSES])
    writer.writerows([*(row for row in old if (row[0], row[1]) not in new), *rows])
    write_file(path, text.getvalue().encode())


def judge(args: argparse.Namespace) -> None:
    """Apply the plan to the runs of the page, at each look that its seeds allow. Raises ValueError before the first."""
    runs, replicates, about = read_runs(args.page)
    lines: list[str] = []
    for look in LOOKS:
        seeds = tuple(range(1, look + 1))
        missing = [_name((arm, seed)) for seed in seeds for arm in ARMS if (arm, seed) not in runs]
        if missing and not lines:
            shown = ", ".join(missing[:3]) + ", .." * (len(missing) > 3)
            raise ValueError(f"{args.page / RUNS}: the look at {look} seeds needs {len(missing)} more runs: {shown}")
        if not missing:
            comparison = Comparison(ARMS, seeds, runs, replicates, about["unit"])
            lines += [*verdict_table(comparison, look), ""]
    lines += [comparison.formatted(main_figures(["Car"]), "github"), f"Bootstrap: {about['draws']}"]
    args.out.mkdir(parents=True, exist_ok=True)
    write_file(args.out / "table.md", ("\n".join(lines) + "\n").encode())
    write_file(args.out / "arms.png", plot_comparison(comparison, list(JUDGED)))
    print("\n".join(lines))


def verdict_table(comparison: Comparison, look: int) -> list[str]:
    """Markdown: a row for each arm and judged figure."""
    lines = [f"Look at {look} seeds; level {LOOKS[look]} for all tests together (Holm)", ""]
    head = f"| figure | arm | pairs | difference | 95 %, seeds | 95 %, {comparison.unit} | p (Holm) | answer |"
    lines += [head, "|---" * 8 + "|"]
    for each in verdicts(comparison, LOOKS[look]):
        low, high, _ = comparison.interval_of_difference(each.arm, each.figure)
        pairs = str(each.pairs) if each.pairs == look else f"{each.pairs} of {look}"
        over_seeds, over_frames = f"{each.low:+.3f} .. {each.high:+.3f}", f"{low:+.3f} .. {high:+.3f}"
        cells = (pairs, f"{each.difference:+.3f}", over_seeds, over_frames, f"{each.p:.4f}", each.answer)
        lines.append(f"| {each.figure} | {each.arm} | {' | '.join(cells)} |")
    return lines


def verdicts(comparison: Comparison, level: float) -> list[Verdict]:
    """The answer for each arm and judged figure, by the rules of the plan."""
    keys = [(arm, figure) for figure in JUDGED for arm in comparison.arms[1:]]
    pairs = {key: [v for v in comparison.differences(*key).values() if not math.isnan(v)] for key in keys}
    adjusted = holm([float(stats.ttest_1samp(pairs[key], 0).pvalue) for key in keys])
    found = []
    for key, p in zip(keys, adjusted, strict=True):
        arm, figure = key
        sample, drawn = summarize(pairs[key]), comparison.interval_of_difference(arm, figure)
        margin, sign = JUDGED[figure], -1 if figure.endswith("[m]") else 1
        same_sign = drawn.low > 0 if sample.mean > 0 else drawn.high < 0
        small = -margin < sample.low and sample.high < margin
        answer = "no difference that matters" if small else "undecided"
        if p < level and same_sign:
            answer = ("better" if sign * sample.mean > 0 else "worse") + ", by less than matters" * small
        found.append(Verdict(arm, figure, sample.n, sample.mean, sample.low, sample.high, p, answer))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p values that may be compared with the level of all tests together."""
    order, adjusted, largest = np.argsort(p_values), [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def power(pairs: int, deviation: float, difference: float, level: float) -> float:
    """Probability that a two-sided paired t test of ``pairs`` normal differences is significant at ``level``."""
    freedom, shift = pairs - 1, difference / deviation * math.sqrt(pairs)
    limit = stats.t.ppf(1 - level / 2, freedom)
    return float(stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift))


def pairs_needed(deviation: float, difference: float, level: float) -> int:
    """The fewest pairs of seeds with a power of at least ``POWER``. Raises ValueError if it takes more than 1000."""
    for pairs in range(3, 1001):
        if power(pairs, deviation, difference, level) >= POWER:
            return pairs
    raise ValueError(f"{difference:g} at a standard deviation of {deviation:g}: takes more than 1000 pairs of seeds")


def show_power(args: argparse.Namespace) -> None:
    """Print the number of pairs for a single test, and for the strictest of Holm's."""
    if not (0 < args.deviation < math.inf and 0 < args.difference < math.inf):
        given = f"--deviation {args.deviation} --difference {args.difference}"
        raise ValueError(f"expected finite numbers above 0, got {given}")
    tests = len(JUDGED) * (len(ARMS) - 1)
    last = max(LOOKS)
    for title, level in (("one test", LOOKS[last]), (f"{tests} tests, the smallest p", LOOKS[last] / tests)):
        needed = pairs_needed(args.deviation, args.difference, level)
        own = power(last, args.deviation, args.difference, level)
        print(f"{title}: {needed} pairs of seeds for a power of {POWER:.0%}; {last} pairs have {own:.0%}")


if __name__ == "__main__":
    sys.exit(main())
