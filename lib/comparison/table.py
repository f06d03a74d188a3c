"""Finished runs of several arms with several seeds -> which arm detects better, and how certain that is.

Arms are compared with the first one by seed: runs of one seed see the same frames in the same order with the same
augmentation, so part of the seed's effect is the same in both and cancels in the difference.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..ops.text_table import text_table
from .statistics import LEVEL, Sample, summarize


@dataclass(frozen=True)
class Comparison:
    arms: tuple[str, ...]  # the others are compared with the first
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], Mapping[str, float]]  # (arm, seed) -> figures by name, of finished runs only

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

    def table(self, figures: Iterable[str]) -> str:
        """As text, one block per figure; '-' where there is no number."""
        figures, header = list(figures), ["", "n", "mean", "sd", "n", "difference", f"{LEVEL:.0%} interval"]
        rows = [row for name in figures for row in (header, *([arm, *self._cells(arm, name)] for arm in self.arms))]
        lines, size = text_table(rows).splitlines(), 1 + len(self.arms)
        blocks = ["\n".join(lines[k * size : (k + 1) * size]) for k in range(len(figures))]
        titles = [f"{name}, difference to {self.arms[0]}" for name in figures]
        return "\n\n".join(f"{title}\n{block}" for title, block in zip(titles, blocks, strict=True))

    def _cells(self, arm: str, figure: str) -> list[str]:
        digits = 2 if "AP40" in figure or "[%]" in figure else 3 if "[m]" in figure else 4
        own = summarize(self.values(arm, figure).values())
        cells = [_count(own), _number(own.mean, digits), _number(own.deviation, digits)]
        if arm == self.arms[0]:
            return cells
        change = summarize(self.differences(arm, figure).values())
        ends = [_number(end, digits, "+") for end in (change.low, change.high)]
        interval = "-" if math.isnan(change.low) else " .. ".join(ends)
        return [*cells, _count(change), _number(change.mean, digits, "+"), interval]

    def to_csv(self) -> str:
        """One row for each figure and arm; empty where there is no number."""
        columns = ["figure", "arm", "n", "without_figure", "mean", "standard_deviation"]
        columns += ["interval_low", "interval_high", "compared_with", "pairs", "pairs_without_figure"]
        columns += [f"difference{part}" for part in ("", "_standard_deviation", "_interval_low", "_interval_high")]
        rows: list[list[object]] = []
        for figure in self.figures:
            for arm in self.arms:
                row = [figure, arm, *summarize(self.values(arm, figure).values())]
                if arm != self.arms[0]:
                    row += [self.arms[0], *summarize(self.differences(arm, figure).values())]
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
