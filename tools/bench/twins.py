"""One training by the official code and by this one: every loss term by epoch, AP and depth errors, side by side.

    make twins     # trains four seeds with tools/compare.py, then calls this script
    python tools/bench/twins.py runs/twins/outputs/ddml_seed1 runs/twins/outputs/ddml_seed2 --out runs/twins

The figures of the official code are those of docs/fidelity/official_training.json. Writes terms.png and table.md.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.comparison.figures import FOUND, MEDIAN_ERROR, ap_figures, ap_name, depth_figures
from lib.config.paths import PROJECT_ROOT
from lib.engine.metrics import read_metrics
from lib.evaluation import DIFFICULTIES
from lib.system.commands import run_command
from lib.system.files import write_file
from lib.visualization.panels import Line, Panel, render_panels

OFFICIAL = PROJECT_ROOT / "docs" / "fidelity" / "official_training.json"
SHARE = "share of steps with quasi_isometric 0"
DEPTH_TERMS = {"depth", "offset_3d", "size_3d", "obj_depth"}
DETECTIONS = [ap_name("Car", metric, level, "official") for metric in ("bbox", "3d") for level in DIFFICULTIES]
DETECTIONS += [f"Car {FOUND}", f"Car {MEDIAN_ERROR}"]
LAST_EPOCH = 15
SHOWN_EPOCHS, FIRST_COMPARED, MARGIN = (2, 4, 6, 8, 11, 15), 2, 0.1
FIRST_DRAWN = 4  # the terms of earlier epochs are many times larger
Series = Mapping[str, Mapping[int, float]]
"""term -> epoch -> mean over the steps; what is NaN in the official code is left out"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, also where terms differ: the table says which; 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="outputs/RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    content = json.loads(OFFICIAL.read_text())

    def compare() -> int:
        official, own = read_official(content), [read_own(run) for run in args.runs]
        text = "\n".join([*term_table(official, own), "", *verdict(official, own)])
        args.out.mkdir(parents=True, exist_ok=True)
        write_file(args.out / "terms.png", render_panels(term_panels(official, own), shared_legend=True))
        write_file(args.out / "table.md", f"{text}\n".encode())
        print(text)
        return 0

    return run_command(compare)


def read_official(content: Mapping[str, Any]) -> list[Series]:
    """Each seed of the official code's file; the first has detections of its last epoch."""
    seeds: list[Series] = []
    for epochs in content["seeds"]:
        terms = {name: {e["epoch"]: e["losses"][name] for e in epochs} for name in epochs[0]["losses"]}
        terms[SHARE] = {e["epoch"]: e["share_of_steps_with_quasi_isometric_0"] for e in epochs}
        seeds.append({name: {k: v for k, v in terms[name].items() if v is not None} for name in terms})
    (val,) = content["val"].values()
    values = (*val["2D AP40@0.7 easy/moderate/hard"], *val["3D AP40@0.7"], val["found in the image [%]"])
    detections = zip(DETECTIONS, (*values, val["median |depth error| [m]"]), strict=True)
    return [{**seeds[0], **{name: {LAST_EPOCH: value} for name, value in detections}}, *seeds[1:]]


def read_own(run: Path) -> Series:
    """The figures of a finished run. Raises FileNotFoundError or ValueError for one that is not finished.

    In a batch without an object with a depth target the terms of ``DEPTH_TERMS`` are 0 here and NaN in the official
    code. Such steps are left out of their means, and the mean of the total of such an epoch is left out.
    """
    records, results = read_metrics(run / "metrics.jsonl"), sorted(run.glob("results/*/*/ap.json"))
    if not records or len(results) != 1 or DEPTH_TERMS - records[0]["losses"].keys():
        raise ValueError(f"{run}: expected metrics.jsonl of a run with both losses, and one results/*/*/ap.json")
    terms: dict[str, dict[int, float]] = {name: {} for name in (*records[0]["losses"], SHARE)}
    for record in records:
        epoch, zero = record["epoch"], record.get("zero_share", {})
        for name, value in record["losses"].items():
            share = zero.get(name, 0.0) if name in DEPTH_TERMS else 0.0
            terms[name][epoch] = value / (1 - share) if share < 1 else math.nan
        terms[SHARE][epoch] = zero.get("quasi_isometric", 0.0)
        if zero.keys() & DEPTH_TERMS:
            del terms["total"][epoch]
    figures = ap_figures(json.loads(results[0].read_text()))
    figures |= depth_figures(json.loads(results[0].with_name("depth_error.json").read_text()))
    return terms | {name: {records[-1]["epoch"]: figures[name]} for name in DETECTIONS}


def term_table(official: Sequence[Series], own: Sequence[Series]) -> list[str]:
    """Markdown: for some epochs the official means, and the range of this code's seeds in brackets."""
    lines = ["| | " + " | ".join(f"epoch {epoch}" for epoch in SHOWN_EPOCHS) + " |", "|---" * 7 + "|"]
    for name in official[0]:
        cells = [f"{_values(official, name, e)} ({_range(own, name, e)})".replace("- (-)", "") for e in SHOWN_EPOCHS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def verdict(official: Sequence[Series], own: Sequence[Series]) -> list[str]:
    """How many official figures lie in the range of this code's seeds, widened by a tenth, and which do not.

    The same for each seed of this code and its other seeds: so many would be expected of one more seed.
    """
    found = [count_inside(f"official seed {number}", seed, own) for number, seed in enumerate(official, 1)]
    others = [count_inside("", seed, [run for run in own if run is not seed]) for seed in own]
    total, expected = sum(number for number, _ in found), sum(number for number, _ in others)
    if not total:
        raise ValueError(f"the runs have no epoch from {FIRST_COMPARED} on")
    outside, left = [line for _, lines in found for line in lines], sum(len(lines) for _, lines in others)
    head = f"{total - len(outside)} of {total} official figures lie within the range of {len(own)} seeds of this code,"
    own_lines = [f"Of each seed of this code and its other seeds: {expected - left} of {expected}."] * bool(expected)
    return [f"{head} widened by 10 %.", *own_lines, *outside]


def count_inside(title: str, seed: Series, others: Sequence[Series]) -> tuple[int, list[str]]:
    """Number of figures of ``seed`` that ``others`` have too, and a line for each one outside their widened range."""
    total, outside = 0, []
    for name, by_epoch in seed.items():
        for epoch, value in by_epoch.items():
            found = [run[name][epoch] for run in others if epoch in run[name]]
            if epoch >= FIRST_COMPARED and found:
                total += 1
                if not min(found) * (1 - MARGIN) <= value <= max(found) * (1 + MARGIN):
                    outside.append(f"- {title}, {name}, epoch {epoch}: {value:.2f} ({_range(others, name, epoch)})")
    return total, outside


def term_panels(official: Sequence[Series], own: Sequence[Series]) -> list[Panel]:
    """A panel for each term: the seeds of both codes over the epochs."""
    panels = []
    for name in official[1]:
        lines = []
        for number, (label, side) in enumerate((("official code", official), ("this code", own))):
            epochs = list(range(FIRST_DRAWN, 1 + max(epoch for run in side for epoch in run["heading"])))
            lines += [Line(label, epochs, [run[name].get(e, math.nan) for e in epochs], number) for run in side]
        panels.append(Panel(name, lines, "epoch"))
    return panels


def _values(runs: Sequence[Series], name: str, epoch: int) -> str:
    return ", ".join(f"{run[name][epoch]:.2f}" for run in runs if epoch in run.get(name, ())) or "-"


def _range(runs: Sequence[Series], name: str, epoch: int) -> str:
    found = [run[name][epoch] for run in runs if epoch in run.get(name, ())]
    return f"{min(found):.2f} .. {max(found):.2f}" if found else "-"


if __name__ == "__main__":
    sys.exit(main())
