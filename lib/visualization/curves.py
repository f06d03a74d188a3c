"""Training curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.files import atomic_write


def plot_metrics(records: Sequence[dict[str, Any]], path: Path) -> Path:
    """Every loss term, the learning rate and (where evaluated) AP over epochs, one small panel each, as a PNG.

    ``records``: the lines of metrics.jsonl. Returns ``path``.
    """
    panels: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        values = {f"loss: {k}": v for k, v in record["losses"].items()} | {"learning rate": record["lr"]}
        values |= record.get("ap", {})
        for name, value in values.items():
            if value is None:  # no figure in this epoch
                continue
            panels.setdefault(name, []).append((record["epoch"], value))
    columns = 4
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(3.2 * columns, 2.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (name, points) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "", linewidth=1.2)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch", fontsize=7)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
    return path
