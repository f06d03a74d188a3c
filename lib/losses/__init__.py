"""Predictions + targets -> named scalars."""

from .criterion import Criterion

__all__ = ["Criterion"]
