"""Predictions + targets -> named scalars."""

from .criterion import LOSSES, Criterion, Loss

__all__ = ["LOSSES", "Criterion", "Loss"]
