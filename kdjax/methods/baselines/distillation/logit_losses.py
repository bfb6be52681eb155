"""Baselines that compare logits: KD, DKD, DIST, standardized logits. They have no adapters."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.methods.baselines.distillation.comparison import Baseline, Batch, Terms
from kdjax.methods.baselines.distillation.registration import (
    register_baseline,
    register_teacher_loss,
)
from kdjax.methods.registry import LOGITS
from kdjax.models import Outputs
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class KD:
    """`losses.kd`."""

    temperature: float = setting(4.0, "T", above=0)


register_teacher_loss(
    "kd",
    lambda student, teacher, labels, settings, axis_name: losses.kd(
        student.logits, teacher.logits, temperature=settings.temperature
    ),
    settings=KD,
    weight=0.9,
    label_weight=0.1,
    reads=LOGITS,
    source="Hinton et al., 2015, arXiv 1503.02531",
    paper="74.92, 70.66, 73.33",
)


@dataclasses.dataclass(frozen=True)
class DIST:
    """`losses.dist`, the classes' columns over the images of all devices.

    The weights are those that others use on CIFAR-100; in the authors' code, for ImageNet, weight,
    beta and gamma are 1.
    """

    beta: float = setting(2.0, "weight of the relations between classes", at_least=0)
    gamma: float = setting(2.0, "weight of the relations between images", at_least=0)
    temperature: float = setting(4.0, "T", above=0)


register_teacher_loss(
    "dist",
    lambda student, teacher, labels, settings, axis_name: losses.dist(
        student.logits, teacher.logits, axis_name=axis_name, **dataclasses.asdict(settings)
    ),
    settings=DIST,
    weight=1.0,
    across_devices=True,
    reads=LOGITS,
    source="Huang et al., NeurIPS 2022, arXiv 2205.10536",
)


@dataclasses.dataclass(frozen=True)
class ZScore:
    """`losses.kd` of standardized logits, with the authors' weights for CIFAR."""

    temperature: float = setting(2.0, "T", above=0)
    unbiased: bool = setting(False, "divide by the unbiased deviation, as the authors' code")


def _standardized_kd(
    student: Outputs,
    teacher: Outputs,
    labels: jax.Array,
    settings: ZScore,
    axis_name: str | None,
) -> jax.Array:
    del labels, axis_name
    logits = (
        losses.standardize(outputs.logits, unbiased=settings.unbiased)
        for outputs in (student, teacher)
    )
    return losses.kd(*logits, temperature=settings.temperature)


register_teacher_loss(
    "zscore",
    _standardized_kd,
    settings=ZScore,
    weight=9.0,
    label_weight=0.1,
    reads=LOGITS,
    source="Sun et al., CVPR 2024, arXiv 2403.01427",
    paper="76.11, 71.43, 76.62",
)


@register_baseline(
    "dkd",
    weight=1.0,
    reads=LOGITS,
    source="Zhao et al., CVPR 2022, arXiv 2203.08679",
    paper="76.24, 71.97, 76.32 (mdistiller)",
)
class DKD(Baseline, kw_only=True):
    """`losses.dkd`, with a linear warm-up by epochs: epoch e of `warm_up_epochs` has e / of it."""

    alpha: float = setting(1.0, "weight of target-class KD", at_least=0)
    beta: float = setting(8.0, "weight of non-target-class KD; less for some pairs", at_least=0)
    temperature: float = setting(4.0, "T", above=0)
    warm_up_epochs: int = setting(20, "of a linear warm-up", at_least=0)

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
