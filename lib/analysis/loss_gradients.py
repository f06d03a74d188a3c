"""A network on training batches -> how large each loss's gradient is beside the others', and how long descriptors are.

Gradients are those of the weights that all losses share, the backbone's and the neck's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Config, General
from ..datasets import KITTI
from ..datasets.samples import training_loader
from ..engine.checkpoint import OPTIONAL_HEAD, load_model_state, read_checkpoint
from ..engine.step import jitter_colors, to_channels_last
from ..losses import Criterion
from ..losses.quasi_isometric import fitted_scale, object_descriptors
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


class Compared(NamedTuple):
    """The gradient of one loss, and the sum of the gradients of the others, of one batch."""

    own: float  # length
    others: float  # length
    product: float  # scalar product of the two


@dataclass(frozen=True, eq=False)
class LossGradients:
    """Everything measured of one checkpoint."""

    name: str
    epoch: int | None  # of the checkpoint
    losses: Mapping[str, Sequence[Compared]]  # by loss, of each batch
    pairs: Pairs  # of objects of one batch, of all batches; feature distances as the loss takes them
    bounds: General

    def figures(self) -> dict[str, Any]:
        """Nested figures for JSON, NaN where undefined; docs/loss_gradients.md explains them."""
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
            "scale_to_depth": float((d_z * d_f).sum() / (d_f**2).sum()) if d_f.any() else math.nan,
            **{f"median_excess_{name}": _median(value[value > 0]) for name, value in excess.items()},
        }
        settings = ("K", "B", "rad", "T", "qi_lower_bound", "qi_fit_scale")
        return {
            "name": self.name,
            "epoch": self.epoch,
            "batches": len(next(iter(self.losses.values()))),
            "losses": {name: _summarize(batches) for name, batches in self.losses.items()},
            "quasi_isometric": {key: getattr(bounds, key) for key in settings},
            "descriptors": descriptors,
        }


def measure_loss_gradients(
    name: str, checkpoint: Path, config: Config, frames: KITTI, n_batches: int, device: torch.device
) -> LossGradients:
    """The first ``n_batches`` batches of the first epoch: augmented, float32, BatchNorm with each batch's statistics.

    Raises FileNotFoundError or ValueError for a checkpoint that is missing, broken, or does not fit the configuration,
    and ValueError where a gradient is not finite.
    """
    model, epoch = load_training_model(checkpoint, config)
    criterion, general = Criterion(config.general, config.losses), config.general
    to_channels_last(model, device)
    shared = [p for part in (model.backbone, model.neck) for p in part.parameters() if p.requires_grad]
    model.train()
    number = min(n_batches, math.ceil(len(frames) / config.dataset.batch_size))
    compared: dict[str, list[Compared]] = {}
    distances: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in show_progress(islice(training_loader(frames, config), number), name, number, "batch", leave=False):
        if not batch.frames:  # all unreadable (dataset.on_bad_frame: skip)
            continue
        images = batch.images.to(device)
        if config.dataset.color_jitter:
            images = jitter_colors(images, config.dataset.color_jitter, general.random_seed, 0, batch.frames)
        targets = {key: value.to(device) for key, value in batch.targets.items()}
        outputs = model(images, targets["indices"])
        losses = criterion(outputs, targets)
        gradients = {key: _flat_gradient(loss, shared) for key, loss in losses.items()}
        broken = [key for key, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        if broken:
            which = f"frames {', '.join(frame.frame_id for frame in batch.frames)}"
            raise ValueError(f"{checkpoint}: the gradient of {broken[0]} is not finite; {which}")
        for key, own in gradients.items():
            others = torch.stack([each for other, each in gradients.items() if other != key]).sum(dim=0)
            values = (own.norm().item(), others.norm().item(), (own @ others).item())
            compared.setdefault(key, []).append(Compared(*values))
        descriptors = object_descriptors(outputs["features"].detach(), targets["indices"]).cpu().numpy()
        mask = batch.targets["mask_3d"].numpy()
        pairs = all_pairs(descriptors[mask], batch.targets["depth"].numpy()[mask][:, 0])
        distances.append((pairs.depth_distance, pairs.feature_distance * _scale_of_loss(pairs, general)))
    if not compared:
        raise ValueError(f"{frames.image_dir}: none of the first {number} batches of {frames.split!r} can be read")
    depth_distance, feature_distance = map(np.concatenate, zip(*distances, strict=True))
    joined = Pairs(depth_distance, feature_distance, len(depth_distance))
    return LossGradients(name, epoch, compared, joined, general)


def load_training_model(checkpoint: Path, config: Config) -> tuple[Any, int | None]:
    """The model with all heads that training uses, and the checkpoint's epoch.

    Raises FileNotFoundError or ValueError for a checkpoint that is missing, broken, or does not fit the configuration.
    """
    if config.trainer.accumulate > 1:
        raise ValueError(f"trainer.accumulate must be 1 to measure gradients, got {config.trainer.accumulate}")
    state = read_checkpoint(checkpoint)
    model = build_model(config)
    if config.general.obj_depth and not any(OPTIONAL_HEAD in name for name in state["model_state"]):
        advice = "set general.obj_depth=false, or take another checkpoint"
        raise ValueError(f"{checkpoint}: general.obj_depth is true, but it has no obj_depth head; {advice}")
    load_model_state(model, state["model_state"], checkpoint)
    return model, state.get("epoch")


def gradients_table(measured: Sequence[LossGradients]) -> str:
    """A column for each checkpoint: the losses' gradients, then the descriptors."""
    columns = [each.figures() for each in measured]
    rows = [["", *(each.name for each in measured)]]
    for key, title, factor, digits in (
        ("ratio_mean", "gradient, as a share of that of all other losses [%]", 100, 2),
        ("cosine", "cosine of its gradient and that of all other losses", 1, 2),
        ("zero_share", "batches in which its gradient is 0 [%]", 100, 1),
    ):
        rows.append([title])
        for loss in columns[0]["losses"]:
            rows.append([f"  {loss}", *(_number(factor * column["losses"][loss][key], digits) for column in columns)])
    rows.append(["pairs of objects of a batch with d_z <= rad"])
    for key, (title, factor, digits) in _DESCRIPTOR_ROWS.items():
        rows.append([f"  {title}", *(_number(factor * column["descriptors"][key], digits) for column in columns)])
    return text_table([row + [""] * (1 + len(columns) - len(row)) for row in rows])


def _scale_of_loss(pairs: Pairs, general: General) -> float:
    """What the loss multiplies the feature distances of this batch by."""
    if not general.qi_fit_scale:
        return 1.0
    near = torch.from_numpy(pairs.near(general))
    return fitted_scale(torch.from_numpy(pairs.feature_distance), torch.from_numpy(pairs.depth_distance), near).item()


def _flat_gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """(P,) float64; zeros for parameters that the loss does not depend on."""
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return torch.cat([part.flatten().double() for part in parts])


def _summarize(batches: Sequence[Compared]) -> dict[str, float]:
    own, others, product = np.array(batches, dtype=np.float64).T
    both = (own > 0) & (others > 0)
    ratios, cosines = own[others > 0] / others[others > 0], product[both] / (own[both] * others[both])
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
