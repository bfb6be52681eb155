"""Losses as pure functions of arrays, usable from any JAX framework.

Every function returns one value per example, `[B]`, in float32 (float64 for float64 inputs); the
caller averages. Hyper-parameters are keyword-only. Only jax is imported.
"""

from kdjax.losses.contrastive import MutualContrast, mutual_contrast
from kdjax.losses.distillation import (
    cross_entropy,
    distill_from_mean,
    kd,
    mutual_learning,
)

__all__ = [
    "MutualContrast",
    "cross_entropy",
    "distill_from_mean",
    "kd",
    "mutual_contrast",
    "mutual_learning",
]
