"""Runs of several configurations ("arms") with several seeds -> which arm detects better, and how sure that is.

Arms are compared with the first one seed by seed: runs of one seed see the same frames in the same order with the same
augmentation, so part of what the seed changes is the same in both and leaves the difference.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.result import DIFFICULTIES
from .statistics import LEVEL, Sample, paired_differences, summarize

_METRICS = {"3d": "3D", "bev": "BEV", "bbox": "2D"}


def ap_figures(ap: Mapping[str, Any]) -> dict[str, float]:
    """AP40 [%] of an ap.json by name: 'Car 3D moderate AP40', 'Car 3D moderate AP40 loose'; NaN where there is none.

    2D boxes have one overlap only. Classes that were never detected are there too, with NaN. Raises ValueError for what
    is no ap.json.
    """
    figures = {}
    try:
        for cls in ap["classes"]:
            for overlap, suffix in (("official", ""), ("loose", " loose")):
                for metric, title in _METRICS.items():
                    if metric == "bbox" and suffix:
                        continue
                    values = ap[overlap].get(cls, {}).get(metric, {}).get("R40", [None] * len(DIFFICULTIES))
                    for difficulty, value in zip(DIFFICULTIES, values, strict=True):
                        name = f"{cls} {title} {difficulty} AP40{suffix}"
                        figures[name] = _figure(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the JSON of an evaluation: {error!r}") from None
    return figures


def depth_figures(depth: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Depth errors of a depth_error.json by name: 'Car depth error: median [m]', '.. median, 10-20 m [m]' and so on.

    'Car found in the image [%]' is the share of the objects that the errors are of. NaN where there is no figure.
    Raises ValueError for what is no depth_error.json.
    """
    figures = {}
    try:
        for errors in depth:
            cls, total = errors["class"], errors["total"]
            figures[f"{cls} depth error: median [m]"] = _figure(total["median_absolute"])
            figures[f"{cls} depth error: mean [m]"] = _figure(total["mean_absolute"])
            figures[f"{cls} depth error: mean relative [%]"] = 100 * _figure(total["mean_relative"])
            figures[f"{cls} found in the image [%]"] = 100 * _figure(total["recall"])
            for band in errors["bands"]:
                name = f"{cls} depth error: median, {band['near']:g}-{band['far']:g} m [m]"
                figures[name] = _figure(band["median_absolute"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not the JSON of depth errors: {error!r}") from None
    return figures


def _figure(value: float | None) -> float:
    return math.nan if value is None else float(value)


def main_figures(classes: Sequence[str]) -> list[str]:
    """Names of those figures that one looks at first."""
    main = ["3D moderate AP40", "3D moderate AP40 loose", "BEV moderate AP40", "2D moderate AP40"]
    main += ["depth error: median [m]", "found in the image [%]"]
    return [f"{cls} {figure}" for cls in classes for figure in main]


@dataclass(frozen=True)
class Comparison:
    """The figures of all runs that are finished."""

    arms: tuple[str, ...]
    """the others are compared with the first"""
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], Mapping[str, float]]
    """by arm and seed: figures by name; a run that is not finished is not there"""

    @property
    def figures(self) -> list[str]:
        """Names of all figures that any run has, in the order in which runs have them."""
        return list(dict.fromkeys(name for run in self.runs.values() for name in run))

    def values(self, arm: str, figure: str) -> dict[int, float]:
        """By seed, of the finished runs; NaN where a run has no such figure."""
        runs = {seed: self.runs[arm, seed] for seed in self.seeds if (arm, seed) in self.runs}
        return {seed: run.get(figure, math.nan) for seed, run in runs.items()}

    def summary(self, arm: str, figure: str) -> Sample:
        return summarize(self.values(arm, figure).values())

    def differences(self, arm: str, figure: str) -> dict[int, float]:
        """To the first arm, by seed, of the seeds that both have; NaN where one of the two runs has no such figure."""
        return paired_differences(self.values(self.arms[0], figure), self.values(arm, figure))

    def difference(self, arm: str, figure: str) -> Sample:
        return summarize(self.differences(arm, figure).values())

    def table(self, figures: Iterable[str]) -> str:
        """As text, one block a figure; '-' where there is no number."""
        width = max(len(arm) for arm in self.arms)
        lines = []
        for figure in figures:
            lines += ["", f"{figure:<{width + 34}}difference to {self.arms[0]}"]
            interval = f"{LEVEL:.0%} interval"
            lines.append(f"{'':<{width}}{'n':>8}{'mean':>10}{'sd':>9}   {'n':>8}{'mean':>10}{interval:>22}")
            lines += [self._line(arm, figure, width) for arm in self.arms]
        return "\n".join(line.rstrip() for line in lines[1:])

    def _line(self, arm: str, figure: str, width: int) -> str:
        digits = 2 if "AP40" in figure or "[%]" in figure else 3 if "[m]" in figure else 4
        own = self.summary(arm, figure)
        line = f"{arm:<{width}}{_count(own):>8}{_number(own.mean, digits):>10}{_number(own.deviation, digits):>9}"
        if arm == self.arms[0]:
            return line
        change = self.difference(arm, figure)
        interval = "-"
        if not math.isnan(change.margin):
            interval = f"{_signed(change.low, digits)} .. {_signed(change.high, digits)}"
        return f"{line}   {_count(change):>8}{_signed(change.mean, digits):>10}{interval:>22}"

    def to_csv(self) -> str:
        """One row for each figure and arm; empty where there is no number."""
        columns = ["figure", "arm", "n", "without_figure", "mean", "standard_deviation"]
        columns += ["interval_low", "interval_high", "compared_with", "pairs", "pairs_without_figure"]
        columns += [f"difference{part}" for part in ("", "_standard_deviation", "_interval_low", "_interval_high")]
        rows: list[list[object]] = []
        for figure in self.figures:
            for arm in self.arms:
                own = self.summary(arm, figure)
                row = [figure, arm, own.n, own.left_out, own.mean, own.deviation, own.low, own.high]
                if arm != self.arms[0]:
                    change = self.difference(arm, figure)
                    row += [self.arms[0], change.n, change.left_out, change.mean, change.deviation]
                    row += [change.low, change.high]
                rows.append(row)
        return _csv(columns, rows)

    def runs_to_csv(self) -> str:
        """One row for each run, finished or not, one column for each figure; empty where there is no number."""
        rows = []
        for seed in self.seeds:
            for arm in self.arms:
                run = self.runs.get((arm, seed))
                figures = [(run or {}).get(name, math.nan) for name in self.figures]
                rows.append([arm, seed, "missing" if run is None else "finished", *figures])
        return _csv(["arm", "seed", "state", *self.figures], rows)


def _count(sample: Sample) -> str:
    return f"{sample.n} of {sample.n + sample.left_out}" if sample.left_out else str(sample.n)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0: no -0.00


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
        writer.writerow(cells + [""] * (len(columns) - len(cells)))
    return text.getvalue()
