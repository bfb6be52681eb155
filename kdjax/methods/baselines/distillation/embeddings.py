"""Baselines that compare embeddings: CC, RKD, PKT and CRD."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.methods.baselines.distillation.comparison import Baseline, Batch, Terms
from kdjax.methods.baselines.distillation.negatives import by_class, draw
from kdjax.methods.baselines.distillation.registration import (
    register_baseline,
    register_teacher_loss,
)
from kdjax.models import Outputs, layers
from kdjax.numerics import accumulation_dtype, unit
from kdjax.settings import setting


@register_baseline(
    "cc",
    weight=0.02,
    source="Peng et al., ICCV 2019, arXiv 1904.01802",
    paper="73.56, 69.63, 72.97",
)
class CC(Baseline, kw_only=True):
    """`losses.correlation_congruence` of learned linear embeddings, the teacher's too."""

    features: int = setting(128, "length of the embeddings", at_least=1)

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        embeddings = _embedded(student, teacher, self.features)
        return Terms(
            losses.correlation_congruence(*embeddings, stop_teacher=False, axis_name=self.axis_name)
        )


@dataclasses.dataclass(frozen=True)
class RKD:
    """`losses.rkd` of the embeddings."""

    distance_weight: float = setting(25.0, "of distances between pairs", at_least=0)
    angle_weight: float = setting(50.0, "of angles in triples", at_least=0)


register_teacher_loss(
    "rkd",
    lambda student, teacher, labels, settings, axis_name: losses.rkd(
        student.embedding, teacher.embedding, axis_name=axis_name, **dataclasses.asdict(settings)
    ),
    settings=RKD,
    weight=1.0,
    across_devices=True,
    source="Park et al., CVPR 2019, arXiv 1904.05068",
    paper="73.35, 69.61, 71.90",
)


@dataclasses.dataclass(frozen=True)
class PKT:
    """`losses.pkt` of the embeddings."""


register_teacher_loss(
    "pkt",
    lambda student, teacher, labels, settings, axis_name: losses.pkt(
        student.embedding, teacher.embedding, axis_name=axis_name
    ),
    settings=PKT,
    weight=30000.0,
    across_devices=True,
    source="Passalis and Tefas, ECCV 2018, arXiv 1803.10837",
    paper="74.54, 70.34, 73.64",
)


@register_baseline(
    "crd",
    weight=0.8,
    source="Tian et al., ICLR 2020, arXiv 1910.10699",
    paper="75.48, 71.16, 75.51",
)
class CRD(Baseline, kw_only=True):
    """`losses.crd` of learned unit vectors, with a memory of all training images.

    The images to tell apart are drawn from the other classes, independently of each other. (The
    official code's 'exact' mode draws without replacement while there are enough of them.)

    `batch['others']` is `by_class(...)`: a constant of the method.
    """

    features: int = setting(128, "length of the vectors", at_least=1)
    negatives: int = setting(16384, "K, images of other classes per image", at_least=1)
    temperature: float = setting(0.07, "tau", above=0)
    momentum: float = setting(0.5, "what is kept of a remembered vector", at_least=0, below=1)

    @staticmethod
    def constants(train_labels: np.ndarray | None) -> dict[str, Any]:
        """The images of other classes, from which negatives are drawn.

        Raises:
          ValueError: no labels.
        """
        if train_labels is None:
            raise ValueError("method 'crd' contrasts classes: give train_labels")
        return {"others": by_class(train_labels)}

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        others = batch["others"]
        images = others.order.shape[0]
        memory = (
            self._bank("student", images),
            self._bank("teacher", images),
            self.variable("memory", "normalizers", jnp.zeros, 2),
        )
        student_vectors, teacher_vectors = _embedded(student, teacher, self.features)
        values, updated = losses.crd(
            unit(student_vectors),
            unit(teacher_vectors),
            batch["index"],
            draw(key, batch["label"], batch["index"], others, count=self.negatives),
            losses.CrdMemory(*(stored.value for stored in memory)),
            temperature=self.temperature,
            momentum=self.momentum,
            axis_name=self.axis_name,
        )
        if not self.is_initializing():
            for variable, value in zip(memory, updated, strict=True):
                variable.value = value
        return Terms(values)

    @nn.nowrap
    def _bank(self, name: str, images: int) -> nn.Variable[Any]:
        bound = math.sqrt(3 / self.features)  # lengths are about 1

        def start() -> jax.Array:
            key = self.make_rng("params")
            return jax.random.uniform(key, (images, self.features), jnp.float32, -bound, bound)

        return self.variable("memory", name, start)


def _embedded(student: Outputs, teacher: Outputs, features: int) -> list[jax.Array]:
    """`[B, features]` learned linear embeddings of both, in float32 at least."""
    embedded = []
    for name, outputs in (("student", student), ("teacher", teacher)):
        x = outputs.embedding
        dtype = accumulation_dtype(x.dtype)
        dense = layers.dense(x.shape[-1], features, dtype=dtype, name=f"{name}_embedding")
        embedded.append(dense(x))
    return embedded
