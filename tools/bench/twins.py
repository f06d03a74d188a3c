"""One training by the official code and by this one: every loss term by epoch, AP and depth errors, side by side.

    make twins     # trains four seeds with tools/compare.py, then calls this script
    python tools/bench/twins.py runs/twins/outputs/ddml_seed1 runs/twins/outputs/ddml_seed2 --out runs/twins

The figures of the official code are those of docs/fidelity/official_training.json. Writes terms.png and table.md.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
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
RARE = ("quasi_isometric", SHARE)  # the loss acts in some of the steps only
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
        for run, series in zip(args.runs, own, strict=True):
            if max(series["heading"]) != LAST_EPOCH:
                raise ValueError(f"{run}: expected a run of {LAST_EPOCH} epochs, got {max(series['heading'])}")
        if len({run.resolve() for run in args.runs}) < max(2, len(args.runs)):
            raise ValueError("expected at least two runs, each given once")
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
    if not records or len(results) != 1 or {*DEPTH_TERMS, "quasi_isometric"} - records[0]["losses"].keys():
        raise ValueError(f"{run}: expected metrics.jsonl of a run with both losses, and one results/*/*/ap.json")
    terms: dict[str, dict[int, float]] = {name: {} for name in (*records[0]["losses"], SHARE)}
    for record in records:
        epoch, zero = record["epoch"], record.get("zero_share", {})
        for name, value in record["losses"].items():
            share = zero.get(name, 0.0) if name in DEPTH_TERMS else 0.0
            if share < 1:
                terms[name][epoch] = value / (1 - share)
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
    """Markdown: how many figures lie within the range of seeds of this code, widened by a tenth at both ends.

    Official ones, and those of each seed of this code in the range of its other seeds: so many are expected of one more
    seed. Then a line for each official figure outside the range of all seeds.
    """
    fewer = [[run for run in own if run is not left_out] for left_out in own]

    def compare(pairs: Iterable[tuple[Series, Sequence[Series]]]) -> list[tuple[str, int, bool]]:
        return [row for seed, runs in pairs for row in compare_ranges(seed, runs)]

    sides = {
        f"official, range of {len(own)} seeds": compare((seed, own) for seed in official),
        f"official, range of {len(own) - 1}": compare((seed, runs) for runs in fewer for seed in official),
        f"a seed of this code, range of the other {len(own) - 1}": compare(zip(own, fewer, strict=True)),
    }
    lines = ["| | " + " | ".join(sides) + " |", "|---" * (1 + len(sides)) + "|"]
    for title, is_in_group in (("quasi_isometric, and its share of 0", True), ("all others", False)):
        counts = [[inside for name, _, inside in rows if (name in RARE) == is_in_group] for rows in sides.values()]
        cells = [f"{sum(found)} of {len(found)} ({sum(found) / max(len(found), 1):.0%})" for found in counts]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    outside = [
        f"- official seed {number}, {name}, epoch {epoch}: {seed[name][epoch]:.2f} ({_range(own, name, epoch)})"
        for number, seed in enumerate(official, 1)
        for name, epoch, inside in compare_ranges(seed, own)
        if not inside
    ]
    return [*lines, "", *outside]


def compare_ranges(seed: Series, others: Sequence[Series]) -> list[tuple[str, int, bool]]:
    """Name, epoch and whether it is inside, of each figure of ``seed`` that ``others`` have, unless all are 0."""
    rows = []
    for name, by_epoch in seed.items():
        for epoch, value in by_epoch.items():
            found = [run[name][epoch] for run in others if epoch in run[name]]
            if epoch >= FIRST_COMPARED and any((*found, value)) and found:
                rows.append((name, epoch, min(found) * (1 - MARGIN) <= value <= max(found) * (1 + MARGIN)))
    return rows


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
