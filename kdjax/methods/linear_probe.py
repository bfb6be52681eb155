"""Linear classifiers on the features of a frozen network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kdjax import losses, numerics
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.registry import register
from kdjax.models import Cohort, Outputs
from kdjax.models.layers import global_average_pool
from kdjax.models.outputs import outputs_of
from kdjax.settings import setting

_CLASSIFIER, _HEADS, _NAME = "classifier", "heads", "network_0"
_DEVIATION = 0.01  # of the initial weights (MoCo, main_lincls.py)


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """`config.linear_probe`."""

    stages: tuple[int, ...] = setting(
        (),
        "stages, counted from 1, whose averaged feature maps have classifiers too, beside the one "
        "on the embedding",
        at_least=1,
    )

    def __post_init__(self) -> None:
        if len(set(self.stages)) < len(self.stages):
            raise ValueError(f"stages={self.stages} names a stage twice")


def _check_config(config: ConfigDict) -> None:
    if not config.start.checkpoint:
        raise UserError(
            "config.start.checkpoint is missing: name the workdir of the trained network that is "
            "to be probed, or import one from PyTorch (--job=import-torch)"
        )
    if config.pruning.method:
        raise UserError(
            f"config.pruning.method={config.pruning.method!r}: the network of method "
            "'linear_probe' is frozen and cannot be pruned; set it to ''"
        )


@register(
    "linear_probe",
    settings=LinearProbe,
    transfers=True,
    check_config=_check_config,
    source="He et al., CVPR 2020, arXiv 1911.05722",
)
def linear_probe(cohort: Cohort, settings: LinearProbe) -> base.Method:
    """Cross entropy of linear classifiers; the network that they stand on is frozen.

    The network is in evaluation mode, with the statistics and without the classifier that it was
    trained with. It is among the constants of the state, so that neither optimizer nor weight decay
    touches it. With the classifier on the embedding it is again a whole network, `network_0`, that
    can be loaded and exported. Those on stages are `network_0/stage1`, ...; no classifier changes
    what another one learns.

    Args:
      cohort: the network, alone, for the classes of the data.
      settings: which stages have classifiers.

    Raises:
      UserError: several networks, or a stage that the network does not have.
    """
    if len(cohort.networks) > 1:
        raise UserError("method 'linear_probe' takes one network in config.networks")
    network = cohort.networks[0]
    if max(settings.stages, default=0) > network.num_stages:
        raise UserError(
            f"config.linear_probe.stages={settings.stages}: the network has stages 1.."
            f"{network.num_stages}"
        )
    stages = tuple(f"stage{number}" for number in settings.stages)

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        network_key, *keys = jax.random.split(key, 2 + len(stages))
        variables = cohort.init(network_key, images)
        outputs = jax.eval_shape(cohort.apply, variables, images)[0]
        frozen = {name: dict(tree[_NAME]) for name, tree in variables.items()}
        shape = frozen["params"].pop(_CLASSIFIER)["kernel"].shape
        params: dict[str, Any] = {_CLASSIFIER: _linear(keys[0], *shape)}
        if stages:
            params[_HEADS] = {
                stage: _linear(key, outputs.features[stage].shape[-1], network.num_classes)
                for stage, key in zip(stages, keys[1:], strict=True)
            }
        return params, {base.CONSTANTS: frozen}

    def variables(params: base.Params, model_state: base.ModelState, index: int) -> base.Variables:
        del index
        frozen = model_state[base.CONSTANTS]
        return frozen | {"params": frozen["params"] | {_CLASSIFIER: params[_CLASSIFIER]}}

    def predict(
        params: base.Params, model_state: base.ModelState, images: jax.Array
    ) -> dict[str, jax.Array]:
        whole = variables(params, model_state, 0)
        inside = {name: {_NAME: tree} for name, tree in whole.items()}
        (outputs,) = outputs_of(cohort, inside, images, train=False)
        heads = {
            f"{_NAME}/{stage}": _logits(params[_HEADS][stage], outputs, stage) for stage in stages
        }
        return {_NAME: outputs.logits} | heads

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        logits = predict(params, model_state, batch["image"])
        values = {
            n: losses.cross_entropy(stage_logits, batch["label"])
            for n, stage_logits in logits.items()
        }
        total = numerics.total(jnp.mean(value) for value in values.values())
        metrics = {"cross_entropy": jnp.mean(values[_NAME])} | {
            f"{name}/accuracy": jnp.mean(stage_logits.argmax(-1) == batch["label"])
            for name, stage_logits in logits.items()
        }
        return total, (model_state, metrics)

    return base.Method(init, loss, predict, variables=variables)


def _linear(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    """Initial weights of a linear layer."""
    kernel = _DEVIATION * jax.random.normal(key, (inputs, outputs))
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def _logits(layer: dict[str, jax.Array], outputs: Outputs, stage: str) -> jax.Array:
    """`[B, N]` of a stage `[B, H, W, C]`, averaged over its pixels."""
    pooled = global_average_pool(outputs.features[stage].astype(jnp.float32))
    return pooled @ layer["kernel"] + layer["bias"]
