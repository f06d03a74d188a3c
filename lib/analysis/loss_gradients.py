"""A network on training batches -> how large each loss's gradient is beside the others', and how long descriptors are.

Gradients are those of the weights that all losses share, the backbone's and the neck's. L losses; P pairs of objects.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import Config, General
from ..datasets import KITTI
from ..datasets.samples import training_loader
from ..engine.checkpoint import load_model_state, read_checkpoint
from ..engine.step import jitter_colors, to_channels_last
from ..losses import Criterion
from ..losses.quasi_isometric import object_descriptors
from ..models import build_model
from ..ops.text import text_table
from ..system.commands import show_progress
from .depth_space import Pairs, all_pairs

_DESCRIPTOR_ROWS = {  # figure -> title, factor, digits
    "pairs": ("number of pairs", 1, 0),
    "inside": ("inside both bounds [%]", 100, 1),
    "above": ("too far apart [%]", 100, 1),
    "below": ("too close [%]", 100, 1),
    "median_depth_distance": ("median of d_z [m]", 1, 2),
    "median_lower_bound": ("median of the lower bound of d_f", 1, 2),
    "median_upper_bound": ("median of the upper bound of d_f", 1, 2),
    "median_feature_distance": ("median of d_f", 1, 2),
    "scale_to_depth": ("factor by which d_f fits d_z", 1, 2),
    "median_excess_above": ("median excess over the upper bound", 1, 2),
    "median_excess_below": ("median excess over the lower bound", 1, 2),
}


@dataclass(frozen=True, eq=False)
class LossGradients:
    """Everything measured of one checkpoint."""

    name: str
    epoch: int | None  # of the checkpoint
    products: Mapping[str, np.ndarray]  # loss -> (batches, L) scalar products of its gradient with each loss's
    pairs: Pairs  # of objects of one batch, of all batches
    bounds: General

    def figures(self) -> dict[str, Any]:
        """Nested figures for JSON, NaN where undefined; docs/loss_gradients.md explains them."""
        gram = np.stack(list(self.products.values()), axis=1)  # (batches, L, L)
        losses = {name: _compare(gram, k) for k, name in enumerate(self.products)}
        near, bounds = self.pairs.near(self.bounds), self.bounds
        d_z, d_f = self.pairs.depth_distance[near], self.pairs.feature_distance[near]
        excess = {"above": d_f - bounds.K * d_z - bounds.B, "below": d_z / bounds.K - d_f - bounds.B}
        descriptors = {
            "pairs": len(d_z),
            **self.pairs.count(bounds).shares(),
            "median_depth_distance": _median(d_z),
            "median_feature_distance": _median(d_f),
            "median_lower_bound": _median(np.maximum(d_z / bounds.K - bounds.B, 0)),
            "median_upper_bound": _median(bounds.K * d_z + bounds.B),
            # the factor on d_f for which its least-squares line through 0 is d_z
            "scale_to_depth": float((d_z * d_f).sum() / max((d_f**2).sum(), 1e-300)) if len(d_z) else math.nan,
            **{f"median_excess_{name}": _median(value[value > 0]) for name, value in excess.items()},
        }
        return {"name": self.name, "epoch": self.epoch, "batches": len(gram), "losses": losses} | {
            "bounds": {"K": bounds.K, "B": bounds.B, "rad": bounds.rad, "T": bounds.T},
            "descriptors": descriptors,
        }


def measure_loss_gradients(
    checkpoint: Path, config: Config, frames: KITTI, n_batches: int, device: torch.device
) -> LossGradients:
    """The first ``n_batches`` batches of the first epoch: augmented, float32, BatchNorm with each batch's statistics.

    Raises FileNotFoundError or ValueError for a checkpoint that is missing, broken, or does not fit the configuration.
    """
    state = read_checkpoint(checkpoint)
    model, criterion = build_model(config), Criterion(config.general, config.losses)
    load_model_state(model, state["model_state"], checkpoint)
    to_channels_last(model, device)
    shared = [p for part in (model.backbone, model.neck) for p in part.parameters() if p.requires_grad]
    model.train()
    number = min(n_batches, math.ceil(len(frames) / config.dataset.batch_size))
    name, batches = checkpoint.stem, islice(training_loader(frames, config), number)
    products: dict[str, list[np.ndarray]] = {}
    pairs: list[Pairs] = []
    for batch in show_progress(batches, name, number, "batch", leave=False):
        if not batch.frames:  # all unreadable (dataset.on_bad_frame: skip)
            continue
        images = batch.images.to(device)
        if config.dataset.color_jitter:
            images = jitter_colors(images, config.dataset.color_jitter, config.general.random_seed, 0, batch.frames)
        targets = {key: value.to(device) for key, value in batch.targets.items()}
        outputs = model(images, targets["indices"])
        losses = criterion(outputs, targets)
        gradients = torch.stack([_flat_gradient(loss, shared) for loss in losses.values()])
        gram = (gradients @ gradients.T).cpu().numpy()
        for key, row in zip(losses, gram, strict=True):
            products.setdefault(key, []).append(row)
        descriptors = object_descriptors(outputs["features"].detach(), targets["indices"]).cpu().numpy()
        mask = batch.targets["mask_3d"].numpy()
        pairs.append(all_pairs(descriptors[mask], batch.targets["depth"].numpy()[mask][:, 0]))
    if not pairs:
        raise ValueError(f"{frames.image_dir}: none of the first {number} batches of {frames.split!r} can be read")
    joined = Pairs(
        np.concatenate([some.depth_distance for some in pairs]),
        np.concatenate([some.feature_distance for some in pairs]),
        sum(some.total for some in pairs),
    )
    stacked = {key: np.stack(rows).astype(np.float64) for key, rows in products.items()}
    return LossGradients(name, state.get("epoch"), stacked, joined, config.general)


def gradients_table(measured: Sequence[LossGradients]) -> str:
    """A column for each checkpoint: the losses' gradients, then the descriptors."""
    columns = [each.figures() for each in measured]
    rows = [["", *(each.name for each in measured)], ["gradient, as a share of that of all other losses [%]"]]
    for loss in columns[0]["losses"]:
        rows.append([f"  {loss}", *(_number(100 * column["losses"][loss]["ratio_mean"], 2) for column in columns)])
    rows.append(["cosine of its gradient and that of all other losses"])
    for loss in columns[0]["losses"]:
        rows.append([f"  {loss}", *(_number(column["losses"][loss]["cosine"], 2) for column in columns)])
    rows.append(["batches in which its gradient is 0 [%]"])
    for loss in columns[0]["losses"]:
        rows.append([f"  {loss}", *(_number(100 * column["losses"][loss]["zero_share"], 1) for column in columns)])
    rows.append(["pairs of objects of a batch with d_z <= rad"])
    for key, (title, factor, digits) in _DESCRIPTOR_ROWS.items():
        rows.append([f"  {title}", *(_number(factor * column["descriptors"][key], digits) for column in columns)])
    return text_table([row + [""] * (1 + len(columns) - len(row)) for row in rows])


def _flat_gradient(loss: torch.Tensor, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """(P,) zeros for parameters that the loss does not depend on."""
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def _compare(gram: np.ndarray, k: int) -> dict[str, float]:
    """Loss ``k`` against the sum of the others: (batches, L, L) scalar products -> figures."""
    others = np.arange(gram.shape[1]) != k
    own = np.sqrt(gram[:, k, k])
    rest = np.sqrt(np.maximum(gram[:, others][:, :, others].sum(axis=(1, 2)), 0))
    acts = (own > 0) & (rest > 0)
    cosines = gram[acts, k][:, others].sum(axis=1) / (own[acts] * rest[acts])
    ratios = own[rest > 0] / rest[rest > 0]
    return {
        "gradient_norm": float(own.mean()),
        "zero_share": float((own == 0).mean()),
        "ratio_mean": float(ratios.mean()) if len(ratios) else math.nan,
        "ratio_median": _median(ratios),
        "cosine": float(cosines.mean()) if len(cosines) else math.nan,
    }


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
