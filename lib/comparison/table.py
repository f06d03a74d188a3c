"""Finished runs of several arms with several seeds -> which arm detects better, and how certain that is.

Arms are compared with the first one by seed: runs of one seed see the same frames in the same order with the same
augmentation, so part of the seed's effect is the same in both and cancels in the difference.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tabulate import tabulate

from ..evaluation.bootstrap import Interval, percentile_interval
from ..ops.text import text_table
from .statistics import LEVEL, Sample, summarize

NO_INTERVAL = Interval(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Comparison:
    arms: tuple[str, ...]  # the others are compared with the first
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], Mapping[str, float]]  # (arm, seed) -> figures by name, of finished runs only
    replicates: Mapping[tuple[str, int], Mapping[str, np.ndarray]] = field(default_factory=dict)
    """(arm, seed) -> AP by name in each replicate (R,) of a bootstrap with the same draws for all runs"""
    unit: str = "frames"  # what the bootstrap draws: 'drives' or 'frames'

    @property
    def figures(self) -> list[str]:
        """Names of all figures that any run has, in the order of the runs."""
        return list(dict.fromkeys(name for run in self.runs.values() for name in run))

    def values(self, arm: str, figure: str) -> dict[int, float]:
        """By seed, of the finished runs; NaN where a run has no such figure."""
        runs = {seed: self.runs[arm, seed] for seed in self.seeds if (arm, seed) in self.runs}
        return {seed: run.get(figure, math.nan) for seed, run in runs.items()}

    def differences(self, arm: str, figure: str) -> dict[int, float]:
        """To the first arm, by seed, for seeds finished in both; NaN where one of the two has no such figure."""
        first, values = self.values(self.arms[0], figure), self.values(arm, figure)
        return {seed: values[seed] - first[seed] for seed in first if seed in values}

    def interval(self, arm: str, figure: str) -> Interval:
        """Bootstrap interval of the mean over the seeds; NaN where a run has no replicates."""
        return percentile_interval(self._mean_replicates(arm, figure, self.values(arm, figure)))

    def interval_of_difference(self, arm: str, figure: str) -> Interval:
        """Bootstrap interval of the mean difference to the first arm; NaN where a run has no replicates."""
        pairs = self.differences(arm, figure)
        arms = (arm, self.arms[0])
        own, first = (self._mean_replicates(name, figure, pairs) for name in arms)
        return percentile_interval(own - first)

    def _mean_replicates(self, arm: str, figure: str, values: Mapping[int, float]) -> np.ndarray:
        """(R,) mean over the seeds that have a value; (1,) NaN where a run has no replicates."""
        runs = [self.replicates.get((arm, s), {}).get(figure) for s, value in values.items() if not math.isnan(value)]
        found = [run for run in runs if run is not None]
        return np.mean(found, axis=0) if found and len(found) == len(runs) else np.full(1, math.nan)

    def table(self, figures: Iterable[str]) -> str:
        """As text, one block per figure; '-' where there is no number."""
        figures, header = list(figures), ["", *self._header()]
        rows = [row for name in figures for row in (header, *([arm, *self._cells(arm, name)] for arm in self.arms))]
        lines, size = text_table(rows).splitlines(), 1 + len(self.arms)
        blocks = ["\n".join(lines[k * size : (k + 1) * size]) for k in range(len(figures))]
        titles = [f"{name}, difference to {self.arms[0]}" for name in figures]
        return "\n\n".join(f"{title}\n{block}" for title, block in zip(titles, blocks, strict=True))

    def formatted(self, figures: Iterable[str], form: str) -> str:
        """One table of all ``figures``, a row for each figure and arm, in a format of the package tabulate, such as
        'github' (Markdown) or 'latex_booktabs'."""
        rows = [[name, arm, *self._cells(arm, name)] for name in figures for arm in self.arms]
        header = ["figure", "arm", *self._header()]
        cells = [row + [""] * (len(header) - len(row)) for row in rows]
        alignment = ["left", "left", *["right"] * (len(header) - 2)]
        return tabulate(cells, header, tablefmt=form, disable_numparse=True, colalign=alignment) + "\n"

    def _header(self) -> list[str]:
        drawn = [f"{LEVEL:.0%}, {self.unit}"] * bool(self.replicates)
        seeds = f"{LEVEL:.0%}, seeds" if drawn else f"{LEVEL:.0%} interval"
        return ["n", "mean", "sd", *drawn, "pairs", "difference", seeds, *drawn]

    def _cells(self, arm: str, figure: str) -> list[str]:
        digits = 2 if "AP40" in figure or "[%]" in figure else 3 if "[m]" in figure else 4
        own = summarize(self.values(arm, figure).values())
        cells = [_count(own), _number(own.mean, digits), _number(own.deviation, digits)]
        cells += [_ends(self.interval(arm, figure), digits)] * bool(self.replicates)
        if arm == self.arms[0]:
            return cells
        change = summarize(self.differences(arm, figure).values())
        cells += [_count(change), _number(change.mean, digits, "+"), _ends(change, digits, "+")]
        return cells + [_ends(self.interval_of_difference(arm, figure), digits, "+")] * bool(self.replicates)

    def to_csv(self) -> str:
        """One row for each figure and arm; empty where there is no number."""
        columns = ["figure", "arm", "n", "without_figure", "mean", "standard_deviation"]
        columns += ["interval_low", "interval_high", "bootstrap_low", "bootstrap_high"]
        columns += ["compared_with", "pairs", "pairs_without_figure"]
        columns += [f"difference{part}" for part in ("", "_standard_deviation", "_interval_low", "_interval_high")]
        columns += ["difference_bootstrap_low", "difference_bootstrap_high"]
        rows: list[list[object]] = []
        for figure in self.figures:
            for arm in self.arms:
                row = [figure, arm, *summarize(self.values(arm, figure).values()), *self.interval(arm, figure)[:2]]
                if arm != self.arms[0]:
                    row += [self.arms[0], *summarize(self.differences(arm, figure).values())]
                    row += self.interval_of_difference(arm, figure)[:2]
                rows.append(row)
        return _csv(columns, rows)

    def runs_to_csv(self) -> str:
        """One row for each run, finished or not, one column for each figure; empty where there is no number."""
        rows: list[list[object]] = []
        for seed in self.seeds:
            for arm in self.arms:
                run = self.runs.get((arm, seed))
                state = "missing" if run is None else "finished"
                rows.append([arm, seed, state, *((run or {}).get(name, math.nan) for name in self.figures)])
        return _csv(["arm", "seed", "state", *self.figures], rows)


def _count(sample: Sample) -> str:
    return f"{sample.n} of {sample.n + sample.left_out}" if sample.left_out else str(sample.n)


def _ends(interval: Sample | Interval, digits: int, sign: str = "") -> str:
    ends = [_number(end, digits, sign) for end in (interval.low, interval.high)]
    return "-" if math.isnan(interval.low) else " .. ".join(ends)


def _number(value: float, digits: int, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no -0.00


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
        writer.writerow(cells + [""] * (len(columns) - len(cells)))
    return text.getvalue()
