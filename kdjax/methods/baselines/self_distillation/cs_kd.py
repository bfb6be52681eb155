"""CS-KD (Yun et al., CVPR 2020, arXiv 2003.13964)."""

from __future__ import annotations

import dataclasses

import jax

from kdjax import losses, numerics
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.registry import LOGITS, DataNeed, register
from kdjax.models import Cohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class CsKd:
    """`config.cs_kd`."""

    temperature: float = setting(4.0, "T", above=0)


@register(
    "cs_kd",
    settings=CsKd,
    family="self_distill",
    reads=LOGITS,
    data={"partners": DataNeed(1, default=1, reason="compares images of one class")},
    source="Yun et al., CVPR 2020, arXiv 2003.13964",
    paper="ResNet-18 78.66 (Self-KD-Lib)",
)
def cs_kd(cohort: Cohort, settings: CsKd, *, partners: int) -> base.Method:
    """CS-KD: `losses.cs_kd` between images and partners of the same class.

    Batches hold groups of 1 + K rows, an image and its partners. As in the authors' code, images
    and partners are two passes in training mode, so that BatchNorm's statistics are those of either
    alone and are updated twice; only the first sends gradients. Accuracies are the images'.

    Args:
      cohort: the networks.
      settings: see `CsKd`.
      partners: K >= 1.

    Raises:
      UserError: no partners.
    """
    if partners < 1:
        raise UserError(f"method 'cs_kd' needs config.data.partners=1 or more (it is {partners})")

    def groups(x: jax.Array) -> jax.Array:
        """`[A * (1 + K), ...] -> [A, 1 + K, ...]`"""
        return x.reshape(-1, 1 + partners, *x.shape[1:])

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        images, labels = groups(batch["image"]), groups(batch["label"])[:, 0]
        outputs, model_state = base.train_outputs(cohort, params, model_state, images[:, 0])
        others = images[:, 1:].reshape(-1, *images.shape[2:])
        partner_outputs, model_state = base.train_outputs(
            cohort, jax.lax.stop_gradient(params), model_state, others
        )
        terms = base.summed_terms(
            losses.cs_kd(
                output.logits,
                partner.logits.reshape(-1, partners, partner.logits.shape[-1]),
                labels,
                temperature=settings.temperature,
            )
            for output, partner in zip(outputs, partner_outputs, strict=True)
        )
        _, metrics = base.classification(outputs, labels)
        return numerics.total(terms.values()), (model_state, metrics | terms)

    def inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
        shown = base.plain_inputs(batch, key)
        group = ("image", *(f"partner {k}" for k in range(1, 1 + partners)))
        return shown._replace(notes=group * (len(shown.labels) // len(group)))

    return base.cohort_method(cohort, loss, inputs=inputs)
