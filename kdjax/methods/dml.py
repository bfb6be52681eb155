"""Deep mutual learning (Zhang et al., CVPR 2018, arXiv 1706.00384)."""

import functools

import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.models import Cohort


def dml(cohort: Cohort, *, temperature: float) -> base.Method:
    """Cross entropy, and every network distilled from every other one.

    Args:
      cohort: two networks or more.
      temperature: T > 0 of `losses.mutual_learning`.

    Raises:
      UserError: the cohort has fewer than two networks.
    """
    if len(cohort.networks) < 2:
        raise UserError("method 'dml' needs at least two networks in config.networks")

    def loss(params, model_state, batch, key):
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        logits = [each.logits for each in outputs]
        mutual = jnp.mean(losses.mutual_learning(logits, temperature=temperature))
        return total + mutual, (model_state, metrics | {"mutual": mutual})

    return base.Method(
        init=functools.partial(base.init_cohort, cohort),
        loss=loss,
        predict=functools.partial(base.predict_cohort, cohort),
        logits_only=True,
    )
