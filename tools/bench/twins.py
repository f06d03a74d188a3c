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

from lib.comparison.figures import ap_figures, ap_name, depth_figures
from lib.config.paths import PROJECT_ROOT
from lib.engine.metrics import read_metrics
from lib.evaluation import DIFFICULTIES
from lib.system.files import write_file
from lib.visualization.panels import Line, Panel, render_panels

OFFICIAL = PROJECT_ROOT / "docs" / "fidelity" / "official_training.json"
SHARE = "share of steps with quasi_isometric 0"
DEPTH_TERMS = {"depth", "offset_3d", "size_3d", "obj_depth"}
SHOWN_EPOCHS, FIRST_COMPARED, MARGIN = (2, 4, 6, 8, 11, 15), 2, 0.1
FIRST_DRAWN = 4  # the terms of earlier epochs are many times larger
Series = Mapping[str, Mapping[int, float]]
"""term -> epoch -> mean over the steps; epochs with a NaN of the official code are left out"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, also where terms differ: the table says which."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="outputs/RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    content = json.loads(OFFICIAL.read_text())
    official = [read_official(epochs) for epochs in content["seeds"]]
    own = [read_own(run) for run in args.runs]
    tables = [*term_table(official, own), "", *verdict(official, own), "", *detection_table(content, args.runs)]
    text = "\n".join(tables)
    args.out.mkdir(parents=True, exist_ok=True)
    write_file(args.out / "terms.png", render_panels(term_panels(official, own), shared_legend=True))
    write_file(args.out / "table.md", f"{text}\n".encode())
    print(text)
    return 0


def read_official(epochs: Sequence[Mapping[str, Any]]) -> Series:
    """One seed of the official code's file."""
    terms = {name: {e["epoch"]: e["losses"][name] for e in epochs} for name in epochs[0]["losses"]}
    terms[SHARE] = {e["epoch"]: e["share_of_steps_with_quasi_isometric_0"] for e in epochs}
    return {name: {k: value for k, value in by_epoch.items() if value is not None} for name, by_epoch in terms.items()}


def read_own(run: Path) -> Series:
    """The metrics.jsonl of a run. Raises ValueError for an unreadable file or one without epochs.

    In a batch without an object with a depth target the terms of ``DEPTH_TERMS`` are 0 here and NaN in the official
    code. Such steps are left out of their means, and the mean of the total of such an epoch is left out.
    """
    records = read_metrics(run / "metrics.jsonl")
    if not records:
        raise ValueError(f"{run / 'metrics.jsonl'}: no epoch is recorded in it")
    terms: dict[str, dict[int, float]] = {name: {} for name in (*records[0]["losses"], SHARE)}
    for record in records:
        epoch, zero = record["epoch"], record["zero_share"]
        for name, value in record["losses"].items():
            terms[name][epoch] = value / (1 - zero.get(name, 0.0)) if name in DEPTH_TERMS else value
        terms[SHARE][epoch] = zero.get("quasi_isometric", 0.0)
        if zero.keys() & DEPTH_TERMS:
            del terms["total"][epoch]
    return terms


def term_table(official: Sequence[Series], own: Sequence[Series]) -> list[str]:
    """Markdown: for some epochs the official means, and the range of this code's seeds in brackets."""
    lines = ["| | " + " | ".join(f"epoch {epoch}" for epoch in SHOWN_EPOCHS) + " |", "|---" * 7 + "|"]
    for name in official[0]:
        cells = [f"{_values(official, name, e)} ({_range(own, name, e)})" for e in SHOWN_EPOCHS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def verdict(official: Sequence[Series], own: Sequence[Series]) -> list[str]:
    """How many official means lie in the range of this code's seeds, widened by a tenth, and which do not."""
    total, outside = 0, []
    for number, seed in enumerate(official, 1):
        for name, by_epoch in seed.items():
            for epoch, value in by_epoch.items():
                found = [run[name][epoch] for run in own if epoch in run[name]]
                if epoch < FIRST_COMPARED or not found:
                    continue
                total += 1
                if not min(found) * (1 - MARGIN) <= value <= max(found) * (1 + MARGIN):
                    outside.append(f"{name}, epoch {epoch}, seed {number}: {value:.3f} ({_range(own, name, epoch)})")
    head = f"{total - len(outside)} of {total} official means lie within the range of {len(own)} seeds, widened by 10 %"
    return [head + (". The others:" if outside else "."), *outside]


def detection_table(content: Mapping[str, Any], runs: Sequence[Path]) -> list[str]:
    """Markdown: AP and depth errors of the last epoch, for the official code and each run."""
    official = next(iter(content["val"].values()))
    titles = [ap_name("Car", metric, level, "official") for metric in ("bbox", "3d") for level in DIFFICULTIES]
    titles += ["Car found in the image [%]", "Car depth error: median [m]"]
    theirs = [*official["2D AP40@0.7 easy/moderate/hard"], *official["3D AP40@0.7"], official["found in the image [%]"]]
    columns = [[*theirs, official["median |depth error| [m]"]]]
    for run in runs:
        folder = next(run.glob("results/*/*/ap.json")).parent
        depth = depth_figures(json.loads((folder / "depth_error.json").read_text()))
        figures = ap_figures(json.loads((folder / "ap.json").read_text())) | depth
        columns.append([figures[title] for title in titles])
    head = ["| | official, seed 1 | " + " | ".join(run.name for run in runs) + " |", "|---" * (2 + len(runs)) + "|"]
    rows = zip(titles, zip(*columns, strict=True), strict=True)
    return head + [f"| {title} | " + " | ".join(f"{value:.2f}" for value in values) + " |" for title, values in rows]


def term_panels(official: Sequence[Series], own: Sequence[Series]) -> list[Panel]:
    """A panel for each term: the seeds of both codes over the epochs."""
    panels = []
    for name in official[0]:
        lines = []
        for number, (label, side) in enumerate((("official code", official), ("this code", own))):
            epochs = list(range(FIRST_DRAWN, 1 + max(epoch for run in side for epoch in run[name])))
            lines += [Line(label, epochs, [run[name].get(e, math.nan) for e in epochs], number) for run in side]
        panels.append(Panel(name, lines, "epoch"))
    return panels


def _values(runs: Sequence[Series], name: str, epoch: int) -> str:
    return ", ".join(f"{run[name][epoch]:.2f}" for run in runs if epoch in run[name]) or "NaN"


def _range(runs: Sequence[Series], name: str, epoch: int) -> str:
    found = [run[name][epoch] for run in runs if epoch in run[name]]
    return f"{min(found):.2f} .. {max(found):.2f}" if found else "-"


if __name__ == "__main__":
    sys.exit(main())
