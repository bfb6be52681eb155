"""DDGSD (Xu and Liu, AAAI 2019): data-distortion guided self-distillation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.form import form
from kdjax.methods.registry import DataNeed, register
from kdjax.models import Cohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Ddgsd:
    """`config.ddgsd`."""

    temperature: float = setting(4.0, "T", above=0)
    feature_weight: float = setting(5e-4, "of the discrepancy of features", at_least=0)
    form: str = form()


@register(
    "ddgsd",
    settings=Ddgsd,
    family="self_distill",
    data={"views": DataNeed(2, default=2, reason="compares two views of each image")},
    source="Xu and Liu, AAAI 2019",
    paper="ResNet-18 76.61 (Self-KD-Lib)",
)
def ddgsd(cohort: Cohort, settings: Ddgsd, *, axis_name: str | None = None) -> base.Method:
    """DDGSD: `losses.ddgsd` between two views of every image, which are in one batch.

    Accuracies are those of the views' mean logits.

    Args:
      cohort: the networks.
      settings: see `Ddgsd`.
      axis_name: the mapped device axis, over which features are averaged.

    Raises:
      UserError: by `loss` and `inputs`, images that do not come in two views.
    """

    def inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
        shown = base.plain_inputs(batch, key)
        views = _two_views(batch)
        labels, weights = (jnp.repeat(x, 2, axis=0) for x in (shown.labels, shown.weights))
        notes = ("view 1", "view 2") * len(views)
        return base.Inputs(views.reshape(-1, *views.shape[2:]), labels, weights, notes)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        labels, shown = batch["label"], inputs(batch, key)
        outputs, model_state = base.train_outputs(cohort, params, model_state, shown.images)
        pairs = [
            (output.logits.reshape(-1, 2, output.logits.shape[-1]), output.embedding)
            for output in outputs
        ]
        terms = base.summed_terms(
            losses.ddgsd(
                logits,
                embedding.reshape(-1, 2, embedding.shape[-1]),
                labels,
                temperature=settings.temperature,
                form=settings.form,
                axis_name=axis_name,
            )
            for logits, embedding in pairs
        )
        total = terms["cross_entropy"] + terms["distillation"]
        total += settings.feature_weight * terms["discrepancy"]
        accuracies = {
            f"network_{i}/accuracy": jnp.mean(logits.mean(axis=1).argmax(-1) == labels)
            for i, (logits, _) in enumerate(pairs)
        }
        return total, (model_state, accuracies | terms)

    return base.cohort_method(cohort, loss, inputs=inputs)


def _two_views(batch: base.Batch) -> jax.Array:
    """`[B, 2, H, W, C]`"""
    views = batch.get("views", batch["image"][:, None])
    if views.shape[1] != 2:
        raise UserError(
            "method 'ddgsd' compares two views of each image; set config.data.views=2 "
            f"(it is {views.shape[1]})"
        )
    return views
