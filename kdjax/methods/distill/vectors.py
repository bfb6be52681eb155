"""Baselines that compare embeddings: CC, RKD, PKT and CRD."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.methods.distill import contrast
from kdjax.methods.distill.baseline import Baseline, Batch, Terms
from kdjax.models import Outputs, layers
from kdjax.numerics import unit


class CC(Baseline, kw_only=True):
    """`losses.correlation_congruence` of learned linear embeddings, the teacher's too."""

    features: int

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        embeddings = _embedded(student, teacher, self.features)
        return Terms(
            losses.correlation_congruence(*embeddings, stop_teacher=False, axis_name=self.axis_name)
        )


class RKD(Baseline, kw_only=True):
    """`losses.rkd` of the embeddings."""

    distance_weight: float
    angle_weight: float

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        return Terms(
            losses.rkd(
                student.embedding,
                teacher.embedding,
                distance_weight=self.distance_weight,
                angle_weight=self.angle_weight,
                axis_name=self.axis_name,
            )
        )


class PKT(Baseline, kw_only=True):
    """`losses.pkt` of the embeddings."""

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        return Terms(losses.pkt(student.embedding, teacher.embedding, axis_name=self.axis_name))


class CRD(Baseline, kw_only=True):
    """`losses.crd` of learned unit vectors, with a memory of all training images.

    The images to tell apart are drawn from the other classes, independently of each other. (The
    official code's 'exact' mode draws without replacement while there are enough of them.)

    `batch['others']` is `contrast.by_class(...)`: a constant of the method.

    Attributes:
      features: length of the vectors.
      negatives: K, images of other classes per image.
      temperature: tau.
      momentum: what is kept of a remembered vector.
    """

    features: int
    negatives: int
    temperature: float
    momentum: float

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        if self.negatives < 1:
            raise ValueError(f"negatives={self.negatives}: must be at least 1")
        others = batch["others"]
        memory = losses.CrdMemory(
            *(self._bank(name, others.order.shape[0]) for name in ("student", "teacher")),
            self.variable("memory", "normalizers", jnp.zeros, 2),
        )
        values, updated = losses.crd(
            *(unit(each) for each in _embedded(student, teacher, self.features)),
            batch["index"],
            contrast.draw(key, batch["label"], batch["index"], others, count=self.negatives),
            losses.CrdMemory(*(each.value for each in memory)),
            temperature=self.temperature,
            momentum=self.momentum,
            axis_name=self.axis_name,
        )
        if not self.is_initializing():
            for variable, value in zip(memory, updated, strict=True):
                variable.value = value
        return Terms(values)

    @nn.nowrap
    def _bank(self, name: str, images: int) -> nn.Variable:
        bound = math.sqrt(3 / self.features)  # lengths are about 1

        def start():
            key = self.make_rng("params")
            return jax.random.uniform(key, (images, self.features), jnp.float32, -bound, bound)

        return self.variable("memory", name, start)


def _embedded(student: Outputs, teacher: Outputs, features: int) -> list[jax.Array]:
    """`[B, features]` learned linear embeddings of both, in float32 at least."""
    embedded = []
    for name, outputs in (("student", student), ("teacher", teacher)):
        x = outputs.embedding
        dtype = layers.at_least_float32(x.dtype)
        dense = layers.dense(x.shape[-1], features, dtype=dtype, name=f"{name}_embedding")
        embedded.append(dense(x))
    return embedded
