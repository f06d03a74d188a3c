"""Training curves: the records of metrics.jsonl over epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

from .panels import Line, Panel

Records = Sequence[Mapping[str, Any]]  # the lines of a metrics.jsonl
_LEARNING_RATE, _SPEED = "learning rate", "images per second"
_AP_GROUP = 3


def metric_panels(runs: Mapping[str, Records]) -> list[Panel]:
    """A panel for each loss term, learning rate, speed and AP that was recorded; a line for each run, by its name."""
    series = {run: _series(records) for run, records in runs.items()}
    titles = sorted({title: None for own in series.values() for title in own}, key=_group)  # a stable sort
    epochs = [record["epoch"] for records in runs.values() for record in records] or [0]
    margin = max(0.03 * (max(epochs) - min(epochs)), 0.1)
    limits = (min(epochs) - margin, max(epochs) + margin)  # the same in all panels, even if few epochs have AP
    panels = []
    for title in titles:
        lines = [
            Line(run, [epoch for epoch, _ in own[title]], [value for _, value in own[title]], number)
            for number, (run, own) in enumerate(series.items())
            if title in own
        ]
        unit, y_limits = ("%", (0, None)) if _group(title) == _AP_GROUP else ("", None)
        panels.append(Panel(title, lines, "epoch", unit, limits, y_limits))
    return panels


def _series(records: Records) -> dict[str, list[tuple[int, float]]]:
    """Title of a panel -> (epoch, value) of each epoch that has a value."""
    series: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        values: dict[str, float | None] = {f"loss: {name}": value for name, value in record["losses"].items()}
        values |= {_LEARNING_RATE: record.get("lr"), _SPEED: record.get("samples_per_second"), **record.get("ap", {})}
        for title, value in values.items():
            if value is not None:
                series.setdefault(title, []).append((record["epoch"], value))
    return series


def _group(title: str) -> int:
    """Order of the panels: the total loss, its terms, learning rate and speed, AP."""
    if title.startswith("loss: "):
        return 0 if title == "loss: total" else 1
    return 2 if title in (_LEARNING_RATE, _SPEED) else _AP_GROUP
