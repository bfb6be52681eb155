"""Mutual contrastive learning with memory banks: the paper's form for ImageNet."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.methods import base
from kdjax.methods.baselines.distillation.negatives import by_class, draw_contrast
from kdjax.methods.mcl import (
    Mcl,
    ProjectionHead,
    distilled,
    init_with_heads,
    projected,
    weighted,
)
from kdjax.methods.registry import register
from kdjax.models import Cohort
from kdjax.numerics import unit
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class MclMemory(Mcl):
    """`config.mcl_memory`."""

    temperature: float = setting(0.07, "tau of the contrastive distributions", above=0)
    positives: int = setting(1, "P, images of its class per anchor", at_least=1)
    negatives: int = setting(8192, "K, images of other classes per anchor", at_least=1)
    momentum: float = setting(0.5, "what is kept of a remembered vector", at_least=0, below=1)


@register(
    "mcl_memory",
    settings=MclMemory,
    family="mcl_imagenet",
    networks=2,
    source="Yang et al., AAAI 2022, arXiv 2104.12565",
    paper="ImageNet, ResNet-18 69.76; two 70.32, four 70.77",
)
def mcl_memory(
    cohort: Cohort,
    settings: MclMemory,
    *,
    train_labels: np.ndarray | None,
    axis_name: str | None = None,
) -> base.Method:
    """MCL, `losses.memory_contrast`, whose contrast are remembered vectors of all training images.

    As `mcl`, but a batch needs no two images of a class. Of every image P of its class and K of
    other classes are drawn in the step. A network's bank has a row per training image; the rows of
    a batch's images, of all devices, move once per step by `losses.remember_embeddings`.

    Every device has all banks, in float32: 4 bytes times images times length, which for ImageNet
    and 128 numbers is 656 MB per network, and as much in a checkpoint. Cut into parts, the K rows
    of an anchor would lie on all devices, and every step would have to send them.

    Args:
      cohort: two networks or more.
      settings: see `MclMemory`.
      train_labels: `[images]` classes of the training split.
      axis_name: the mapped device axis.

    Raises:
      UserError: there are no two classes.
    """
    if train_labels is None:
        raise ValueError("method 'mcl_memory' contrasts classes: give train_labels")
    count = len(cohort.networks)
    head = ProjectionHead(settings.projection_features)
    classes = by_class(train_labels)
    names = [f"network_{i}" for i in range(count)]

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        key, bank_key = jax.random.split(key)
        params, model_state = init_with_heads(cohort, head, key, images)
        shape = (count, len(train_labels), settings.projection_features)
        rows = unit(jax.random.normal(bank_key, shape, jnp.float32))
        return params, model_state | {base.MEMORY: dict(zip(names, rows, strict=True))}

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        labels, index = batch["label"], batch["index"]
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, labels)
        embeddings = projected(head, params, outputs)
        memory = model_state[base.MEMORY]
        terms = losses.memory_contrast(
            embeddings,
            [memory[name] for name in names],
            draw_contrast(
                base.image_keys(key, len(labels), axis_name),
                labels,
                index,
                classes,
                positives=settings.positives,
                negatives=settings.negatives,
            ),
            positives=settings.positives,
            temperature=settings.temperature,
            kd_temperature=settings.kd_temperature,
        )
        contrast, contrast_metrics = weighted(terms, settings)
        distillation, distillation_metrics = distilled(outputs, settings)
        moved = losses.updated_memories(
            [memory[name] for name in names],
            index,
            embeddings,
            momentum=settings.momentum,
            axis_name=axis_name,
        )
        model_state |= {base.MEMORY: dict(zip(names, moved, strict=True))}
        total += contrast + distillation
        return total, (model_state, metrics | contrast_metrics | distillation_metrics)

    return base.cohort_method(cohort, loss, init=init)
