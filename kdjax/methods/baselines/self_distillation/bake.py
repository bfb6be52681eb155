"""BAKE (Ge et al., 2021, arXiv 2104.13298)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.form import form
from kdjax.methods.registry import DataNeed, register
from kdjax.models import Cohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Bake:
    """`config.bake`."""

    temperature: float = setting(4.0, "T", above=0)
    omega: float = setting(0.5, "how far predictions are propagated", at_least=0, below=1)
    form: str = form()


@register(
    "bake",
    settings=Bake,
    family="self_distill",
    data={"partners": DataNeed(1, default=3, reason="propagates among images of one class")},
    source="Ge et al., 2021, arXiv 2104.13298",
    paper="ResNet-18 76.93 (Self-KD-Lib)",
)
def bake(cohort: Cohort, settings: Bake, *, axis_name: str | None = None) -> base.Method:
    """BAKE: cross entropy, and `losses.bake` among all images of the global batch.

    Where partners stand in a batch does not matter: all rows learn, and from all others.

    Args:
      cohort: the networks.
      settings: see `Bake`.
      axis_name: the mapped device axis, over which predictions are gathered.
    """
    options = dataclasses.asdict(settings)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        distillation = numerics.total(
            jnp.mean(losses.bake(output.logits, output.embedding, axis_name=axis_name, **options))
            for output in outputs
        )
        return total + distillation, (model_state, metrics | {"distillation": distillation})

    return base.cohort_method(cohort, loss)
