"""Baselines that compare logits: KD, DKD, DIST, standardized logits. They have no adapters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.methods.distill.baseline import Baseline, Batch, Terms
from kdjax.models import Outputs


class KD(Baseline, kw_only=True):
    """`losses.kd`."""

    logits_only = True

    temperature: float

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        return Terms(losses.kd(student.logits, teacher.logits, temperature=self.temperature))


class DKD(Baseline, kw_only=True):
    """`losses.dkd`, with a linear warm-up by epochs: epoch e of `warm_up_epochs` has e / of it."""

    logits_only = True

    alpha: float
    beta: float
    temperature: float
    warm_up_epochs: int

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del key
        values = losses.dkd(
            student.logits,
            teacher.logits,
            batch["label"],
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
        )
        if not self.warm_up_epochs:
            return Terms(values)
        return Terms(values * jnp.minimum((batch["epoch"] + 1) / self.warm_up_epochs, 1.0))


class DIST(Baseline, kw_only=True):
    """`losses.dist`, the classes' columns over the images of all devices."""

    logits_only = True

    beta: float
    gamma: float
    temperature: float

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        return Terms(
            losses.dist(
                student.logits,
                teacher.logits,
                beta=self.beta,
                gamma=self.gamma,
                temperature=self.temperature,
                axis_name=self.axis_name,
            )
        )


class ZScore(Baseline, kw_only=True):
    """`losses.kd` of standardized logits."""

    logits_only = True

    temperature: float
    unbiased: bool

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        logits = (
            losses.standardize(each.logits, unbiased=self.unbiased) for each in (student, teacher)
        )
        return Terms(losses.kd(*logits, temperature=self.temperature))
