"""Deep mutual learning (Zhang et al., CVPR 2018, arXiv 1706.00384)."""

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.methods import base
from kdjax.methods.registry import LOGITS, register
from kdjax.models import Cohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Dml:
    """`config.dml`."""

    temperature: float = setting(2.0, "T of `losses.mutual_learning`", above=0)


@register(
    "dml",
    settings=Dml,
    reads=LOGITS,
    networks=2,
    source="Zhang et al., CVPR 2018, arXiv 1706.00384",
)
def dml(cohort: Cohort, settings: Dml) -> base.Method:
    """Cross entropy, and every network distilled from every other one.

    Raises:
      UserError: the cohort has fewer than two networks.
    """

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        logits = [output.logits for output in outputs]
        mutual = jnp.mean(losses.mutual_learning(logits, temperature=settings.temperature))
        return total + mutual, (model_state, metrics | {"mutual": mutual})

    return base.cohort_method(cohort, loss)
