"""The losses of a batch, by name and weighted: what is summed, logged and averaged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import General, Losses
from ..ops.depth import decode_depth
from ..ops.heads import OBJECT_HEADS
from . import functional as terms
from .quasi_isometric import object_descriptors, quasi_isometric_loss

Tensors = dict[str, Tensor]
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Criterion:
    """The losses of :data:`LOSSES` that the configuration enables.

    Where several ranks share a batch, ``all_reduce_sum`` sums a tensor over them and ``gather_rows`` concatenates their
    rows (B, ..), both with gradients; every rank then returns the losses of the whole batch.
    """

    config: General
    weights: Losses = field(default_factory=Losses)
    all_reduce_sum: terms.Reduction = terms.keep_local
    gather_rows: terms.Reduction = terms.keep_local

    def __call__(self, outputs: Tensors, targets: Tensors) -> Tensors:
        """Losses by name, as scalars; nothing that is passed in is changed.

        ``outputs`` are those of ``CenterNet3D.forward(images, targets['indices'])``, ``targets`` those of
        ``encode_targets``, stacked to (B, ..), with ``obj_depth`` (B, 1, h, w) [m] where that loss is enabled.
        """
        # half-precision outputs (amp) are summed in float32
        outputs = {name: value.float() if value.dtype in _HALF else value for name, value in outputs.items()}
        losses = {}
        for name, loss in LOSSES.items():
            if loss.is_enabled(self.config):
                value, weight = loss.function(outputs, targets, self), getattr(self.weights, name, 1.0)
                losses[name] = value if weight == 1 else weight * value
        return losses


LossFunction = Callable[[Tensors, Tensors, Criterion], Tensor]


class Loss(NamedTuple):
    """One entry of :data:`LOSSES`."""

    function: LossFunction  # (outputs, targets, criterion) -> scalar, over all ranks, 0 where nothing is masked
    is_enabled: Callable[[General], bool] = lambda config: True


def object_loss(name: str, term: Callable[..., Tensor] = terms.l1_loss) -> LossFunction:
    """``term`` of an object head's output and its target entries, in the order of :data:`OBJECT_HEADS`."""
    head = OBJECT_HEADS[name]
    return lambda o, t, c: term(o[name], *(t[entry] for entry in head.targets), t[head.mask], c.all_reduce_sum)


def depth_loss(outputs: Tensors, targets: Tensors, criterion: Criterion) -> Tensor:
    """The Laplacian loss of the depth head."""
    depth, log_variance = decode_depth(outputs["depth"][..., :1]), outputs["depth"][..., 1:]
    mask = targets[OBJECT_HEADS["depth"].mask]
    return terms.laplacian_depth_loss(depth, log_variance, targets["depth"], mask, criterion.all_reduce_sum)


def descriptor_loss(outputs: Tensors, targets: Tensors, criterion: Criterion) -> Tensor:
    """The quasi-isometric loss on the descriptors of all objects of the batch."""
    c = criterion.config
    descriptors = object_descriptors(outputs["features"], targets["indices"])
    depth, mask = targets["depth"].to(descriptors.dtype), targets["mask_3d"][..., None].to(descriptors.dtype)
    objects = criterion.gather_rows(torch.cat([descriptors, depth, mask], dim=2)).flatten(0, 1)
    features, depths, counted = objects[:, :-2], objects[:, -2], objects[:, -1] > 0
    return quasi_isometric_loss(features, depths, counted, c.K, c.B, c.rad, c.T, c.qi_lower_bound, c.qi_fit_scale)


def object_depth_loss(outputs: Tensors, targets: Tensors, criterion: Criterion) -> Tensor:
    """The Laplacian loss of the object-wise depth head, over all cells that show an object."""
    prediction, depth_map = outputs["obj_depth"], targets["obj_depth"]
    depth, log_variance = decode_depth(prediction[:, :1])[..., None], prediction[:, 1:, ..., None]
    mask = depth_map != 0
    return terms.laplacian_depth_loss(depth, log_variance, depth_map[..., None], mask, criterion.all_reduce_sum)


LOSSES: dict[str, Loss] = {  # MonoDLE's seven and DDML's two, in the order in which they are summed
    "heatmap": Loss(lambda o, t, c: terms.heatmap_focal_loss(o["heatmap"], t["heatmap"], c.all_reduce_sum)),
    "offset_2d": Loss(object_loss("offset_2d")),
    "size_2d": Loss(object_loss("size_2d")),
    "depth": Loss(depth_loss),
    "offset_3d": Loss(object_loss("offset_3d")),
    "size_3d": Loss(object_loss("size_3d", terms.dimension_aware_l1_loss)),
    "heading": Loss(object_loss("heading", terms.heading_loss)),
    "quasi_isometric": Loss(descriptor_loss, lambda c: c.qi),
    "obj_depth": Loss(object_depth_loss, lambda c: c.obj_depth),
}
