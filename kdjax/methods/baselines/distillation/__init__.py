"""Distillation from a trained teacher: one method, with a baseline per loss."""

from kdjax.methods.baselines.distillation import (
    embeddings,
    logit_losses,
    map_losses,
    two_phase_losses,
)
from kdjax.methods.baselines.distillation.comparison import Baseline, Terms, TwoPhases
from kdjax.methods.baselines.distillation.negatives import by_class
from kdjax.methods.baselines.distillation.registration import (
    BASELINES,
    register_baseline,
    register_teacher_loss,
)
from kdjax.methods.baselines.distillation.student import distill

__all__ = [
    "BASELINES",
    "Baseline",
    "Terms",
    "TwoPhases",
    "by_class",
    "distill",
    "embeddings",
    "logit_losses",
    "map_losses",
    "register_baseline",
    "register_teacher_loss",
    "two_phase_losses",
]
