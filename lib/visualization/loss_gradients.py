"""Gradients of the losses and distances of descriptors, by checkpoint, as an image."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ..analysis.depth_report import SHARES
from ..analysis.loss_gradients import LossGradients
from .panels import Line, Panel, render_panels


def loss_gradients_png(measured: Sequence[LossGradients]) -> bytes:
    """A PNG with five panels over the epochs (over the numbers of the checkpoints where one has no epoch)."""
    columns = [each.figures() for each in measured]
    epochs = [column["epoch"] for column in columns]
    has_epochs = None not in epochs and len(set(epochs)) == len(epochs)
    x, x_label = (epochs, "epoch") if has_epochs else (list(range(1, 1 + len(columns))), "checkpoint")
    losses = list(columns[0]["losses"])

    def of_losses(key: str, factor: float) -> list[Line]:
        return [Line(name, x, [factor * c["losses"][name][key] for c in columns], k) for k, name in enumerate(losses)]

    def of_descriptors(keys: dict[str, str], factor: float) -> list[Line]:
        named = enumerate(keys.items())
        return [Line(title, x, [factor * c["descriptors"][key] for c in columns], k) for k, (key, title) in named]

    ratios = of_losses("ratio_mean", 1)
    logarithms = [replace(line, y=[math.log10(y) if y > 0 else math.nan for y in line.y]) for line in ratios]
    distances = {
        "median_feature_distance": "d_f",
        "median_lower_bound": "lower bound",
        "median_upper_bound": "upper bound",
    }
    percent = (0.0, 100.0)
    panels = [
        Panel("gradient beside the others' (log10)", logarithms, x_label, legend_title=""),
        Panel("cosine with the others' gradient", of_losses("cosine", 1), x_label, legend_title=""),
        Panel("batches with gradient 0 [%]", of_losses("zero_share", 100), x_label, y_limits=percent, legend_title=""),
        Panel("pairs within rad [%]", of_descriptors(SHARES, 100), x_label, y_limits=percent, legend_title=""),
        Panel("medians of these pairs", of_descriptors(distances, 1), x_label, legend_title=""),
    ]
    return render_panels(panels)
