"""Training curves: what metrics.jsonl holds, over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .panels import Line, Panel, save_panels

Records = Sequence[Mapping[str, Any]]
"""the lines of a metrics.jsonl"""
_RATE, _SPEED = "learning rate", "images per second"
_AP = 3
"""the group of AP, which comes last"""


def plot_metrics(runs: Mapping[str, Records], path: Path) -> Path:
    """Every loss term, learning rate, speed and (where evaluated) AP of one or several runs, a panel each.

    ``runs``: by name, which is what the legend says; a single run has none. The form is the path's suffix, .png, .pdf
    or .svg. Returns ``path``.
    """
    save_panels(metric_panels(runs), path, shared_legend=len(runs) > 1)
    return path


def metric_panels(runs: Mapping[str, Records]) -> list[Panel]:
    """A panel for each quantity that any of the runs has, with a line for each run that has it."""
    columns = {run: _columns(records) for run, records in runs.items()}
    names = sorted({name: None for own in columns.values() for name in own}, key=_group)  # sorted() keeps their order
    epochs = [record["epoch"] for records in runs.values() for record in records] or [0]
    margin = max(0.03 * (max(epochs) - min(epochs)), 0.1)
    limits = (min(epochs) - margin, max(epochs) + margin)  # the same in all panels, also where few epochs have AP
    panels = []
    for name in names:
        lines = []
        for number, (run, own) in enumerate(columns.items()):
            points = own.get(name, [])
            if points:
                lines.append(Line(run, [epoch for epoch, _ in points], [value for _, value in points], number))
        last = _group(name) == _AP
        unit, y_limits = ("%", (0, None)) if last else ("", None)
        panels.append(Panel(name, lines, "epoch", unit, limits, y_limits, whole_x=True))
    return panels


def _columns(records: Records) -> dict[str, list[tuple[int, float]]]:
    """(epoch, value) by the panel's title."""
    columns: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        values: dict[str, float | None] = {f"loss: {name}": value for name, value in record["losses"].items()}
        values[_RATE] = record.get("lr")
        values[_SPEED] = record.get("samples_per_second")
        values |= record.get("ap", {})
        for name, value in values.items():
            if value is not None:  # no figure in this epoch
                columns.setdefault(name, []).append((record["epoch"], value))
    return columns


def _group(name: str) -> int:
    """The total loss first, then its terms, learning rate and speed, and AP."""
    if name.startswith("loss: "):
        return 0 if name == "loss: total" else 1
    return 2 if name in (_RATE, _SPEED) else _AP
