"""Predictions + targets -> named scalars."""

from .criterion import LOSSES, Criterion, Loss
from .functional import laplacian_depth_loss
from .quasi_isometric import object_descriptors, quasi_isometric_loss

__all__ = ["LOSSES", "Criterion", "Loss", "laplacian_depth_loss", "object_descriptors", "quasi_isometric_loss"]
