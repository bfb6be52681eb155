"""Virtual softmax (Chen et al., NeurIPS 2018, arXiv 1811.12611)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.form import form
from kdjax.methods.registry import register
from kdjax.models import Cohort


@dataclasses.dataclass(frozen=True)
class VirtualSoftmax:
    """`config.virtual_softmax`."""

    form: str = form()


@register(
    "virtual_softmax",
    settings=VirtualSoftmax,
    family="self_distill",
    source="Chen et al., NeurIPS 2018, arXiv 1811.12611",
    paper="ResNet-18 78.54 (Self-KD-Lib)",
)
def virtual_softmax(cohort: Cohort, settings: VirtualSoftmax) -> base.Method:
    """Cross entropy with a virtual class among the others, `losses.virtual_softmax`.

    Networks are evaluated without the virtual class. In the paper's form classifiers have no bias;
    it is in the parameters, where it is 0 and stays so. In the library's they keep it.
    """
    prepare: Callable[[base.Params], base.Params] = (
        _without_bias if settings.form == "paper" else lambda params: params
    )

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        params, model_state = base.init_cohort(cohort, key, images)
        return prepare(params), model_state

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        params, labels = prepare(params), batch["label"]
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        _, metrics = base.classification(outputs, labels)
        means = []
        for i, output in enumerate(outputs):
            kernel = params["cohort"][f"network_{i}"]["classifier"]["kernel"]
            values = losses.virtual_softmax(output.logits, output.embedding, kernel, labels)
            means.append(jnp.mean(values))
        return numerics.total(means), (model_state, metrics)

    def predict(
        params: base.Params, model_state: base.ModelState, images: jax.Array
    ) -> dict[str, jax.Array]:
        return base.predict_cohort(cohort, prepare(params), model_state, images)

    return base.cohort_method(cohort, loss, init=init, predict=predict)


def _without_bias(params: base.Params) -> base.Params:
    """The parameters with zeros for every classifier's bias, which gets no gradient then."""

    def of_network(network: dict[str, Any]) -> dict[str, Any]:
        classifier = network["classifier"]
        bias = jnp.zeros_like(classifier["bias"])
        return network | {"classifier": classifier | {"bias": bias}}

    networks = {
        name: of_network(network) if "classifier" in network else network  # a trunk has none
        for name, network in params["cohort"].items()
    }
    return params | {"cohort": networks}
