"""All terms of a batch, by name and already weighted: what is summed, logged and averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..config import General
from ..ops.depth import decode_depth
from . import functional as terms
from .quasi_isometric import object_descriptors, quasi_isometric_loss

_HALF = (torch.bfloat16, torch.float16)


class Criterion:
    """MonoDLE's seven terms, all of weight 1, and DDML's two where the config switches them on.

    Where several processes share a batch, ``total`` sums a tensor over them and ``gather`` puts together the rows
    (B, ..) of all, both with gradients; every process then returns the terms of the whole batch.
    """

    def __init__(
        self,
        config: General,
        total: terms.Total = terms.alone,
        gather: Callable[[Tensor], Tensor] = terms.alone,
    ) -> None:
        self.config, self.total, self.gather = config, total, gather

    def __call__(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """``outputs`` of ``CenterNet3D.forward(images, targets['indices'])``, ``targets`` of ``encode_targets``,
        stacked to (B, ..), plus ``obj_depth`` (B, 1, h, w) [m] where that loss is on.

        Returns:
            name -> scalar. Nothing that is passed in is changed.
        """
        mask_2d, mask_3d, total = targets["mask_2d"], targets["mask_3d"], self.total
        # half-precision outputs (amp) are summed in float32
        o = {name: value.float() if value.dtype in _HALF else value for name, value in outputs.items()}
        depth = decode_depth(o["depth"][..., :1])
        losses = {
            "heatmap": terms.heatmap_focal_loss(o["heatmap"], targets["heatmap"], total),
            "offset_2d": terms.l1_loss(o["offset_2d"], targets["offset_2d"], mask_2d, total),
            "size_2d": terms.l1_loss(o["size_2d"], targets["size_2d"], mask_2d, total),
            "depth": terms.laplacian_depth_loss(depth, o["depth"][..., 1:], targets["depth"], mask_3d, total),
            "offset_3d": terms.l1_loss(o["offset_3d"], targets["offset_3d"], mask_3d, total),
            "size_3d": terms.dimension_aware_l1_loss(
                o["size_3d"], targets["size_3d"], targets["src_size_3d"], mask_3d, total
            ),
            "heading": terms.heading_loss(o["heading"], targets["heading_bin"], targets["heading_res"], mask_2d, total),
        }
        if self.config.qi:
            losses["quasi_isometric"] = self.config.qi_weight * self._quasi_isometric(o["features"], targets)
        if self.config.obj_depth:
            losses["obj_depth"] = self.config.obj_depth_weight * self._object_depth(o["obj_depth"], targets)
        return losses

    def _quasi_isometric(self, features: Tensor, targets: dict[str, Tensor]) -> Tensor:
        c = self.config
        descriptors = object_descriptors(features, targets["indices"])
        depth, mask = targets["depth"].to(descriptors.dtype), targets["mask_3d"][..., None].to(descriptors.dtype)
        objects = self.gather(torch.cat([descriptors, depth, mask], dim=2)).flatten(0, 1)
        return quasi_isometric_loss(
            objects[:, :-2],
            objects[:, -2],
            objects[:, -1] > 0,
            c.K,
            c.B,
            c.rad,
            c.T,
            c.qi_lower_bound,
        )

    def _object_depth(self, prediction: Tensor, targets: dict[str, Tensor]) -> Tensor:
        depth_map = targets["obj_depth"]
        return terms.laplacian_depth_loss(
            decode_depth(prediction[:, :1])[..., None],
            prediction[:, 1:, ..., None],
            depth_map[..., None],
            depth_map != 0,
            self.total,
        )
