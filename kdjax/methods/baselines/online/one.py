"""Knowledge distillation by on-the-fly native ensemble: ONE (Lan et al., NeurIPS 2018)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.registry import register
from kdjax.models import Cohort, GatedCohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class One:
    """`config.one`."""

    temperature: float = setting(2.0, "T of `losses.one`", above=0)


@register(
    "one",
    settings=One,
    family="online",
    networks=2,
    source="Lan et al., NeurIPS 2018, arXiv 1806.04606, section 3",
    paper="ResNet-32 71.09; a branch of four 74.26, ensemble 75.97 (MCL-OKD)",
)
def one(cohort: Cohort, settings: One) -> base.Method:
    """Cross entropy of every branch and of their gated ensemble, from which all branches learn.

    It predicts `network_i` and `ensemble`, the gated one.

    Args:
      cohort: networks of one architecture that share their early stages; a gate is added.
      settings: see `One`.

    Raises:
      UserError: fewer than two networks, or nothing shared.
    """
    if not cohort.shared_stages:
        raise UserError(
            "config.shared_stages=0: the gate of method 'one' sees the shared feature map; share "
            "at least one stage"
        )
    gated = GatedCohort(cohort.networks, shared_stages=cohort.shared_stages)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        labels = batch["label"]
        outputs, model_state = base.train_outputs(gated, params, model_state, batch["image"])
        total, metrics = base.classification(outputs.networks, labels)
        metrics["ensemble/cross_entropy"] = jnp.mean(losses.cross_entropy(outputs.ensemble, labels))
        metrics["ensemble/accuracy"] = jnp.mean(outputs.ensemble.argmax(-1) == labels)
        logits = [output.logits for output in outputs.networks]
        metrics["distillation"] = jnp.mean(
            losses.one(logits, outputs.ensemble, temperature=settings.temperature)
        )
        total += metrics["ensemble/cross_entropy"] + metrics["distillation"]
        return total, (model_state, metrics)

    return base.cohort_method(gated, loss, predict=functools.partial(_predict, gated))


def _predict(
    cohort: GatedCohort, params: base.Params, model_state: base.ModelState, images: jax.Array
) -> dict[str, jax.Array]:
    outputs = base.evaluation_outputs(cohort, params, model_state, images)
    logits = {f"network_{i}": output.logits for i, output in enumerate(outputs.networks)}
    return logits | {"ensemble": outputs.ensemble}
