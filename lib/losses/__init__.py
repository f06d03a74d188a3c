"""Predictions + targets -> named scalars."""

from lib.losses.criterion import Criterion

__all__ = ["Criterion"]
