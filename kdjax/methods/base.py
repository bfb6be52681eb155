"""What all methods are made of: the type `Method`, and methods of cohorts of networks."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.errors import UserError
from kdjax.methods.method import (
    CONSTANTS,
    MEMORY,
    Batch,
    EpochReport,
    Init,
    Inputs,
    Loss,
    LossResult,
    Method,
    Metrics,
    ModelState,
    Params,
    PickVariables,
    Predict,
    Renormalize,
    Variables,
    embedder,
    network_variables,
    plain_inputs,
    predictor,
    unchanged,
)
from kdjax.models import Cohort, Outputs, Part, network_parts
from kdjax.models.outputs import outputs_of

__all__ = [
    "CONSTANTS",
    "MEMORY",
    "Batch",
    "EpochReport",
    "Init",
    "Inputs",
    "Loss",
    "LossResult",
    "Method",
    "Metrics",
    "ModelState",
    "Params",
    "PickVariables",
    "Predict",
    "Renormalize",
    "Variables",
    "check_nothing_shared",
    "classification",
    "cohort_embeddings",
    "cohort_method",
    "cohort_parts",
    "embedder",
    "evaluation_outputs",
    "image_keys",
    "init_cohort",
    "mean_logits",
    "network_variables",
    "plain_inputs",
    "predict_cohort",
    "predictor",
    "summed_terms",
    "train_outputs",
    "unchanged",
]


def init_cohort(cohort: nn.Module, key: jax.Array, images: jax.Array) -> tuple[Params, ModelState]:
    """The cohort's parameters under 'cohort', its batch statistics under 'batch_stats'."""
    variables = cohort.init(key, images)
    return {"cohort": variables["params"]}, {"batch_stats": variables.get("batch_stats", {})}


def train_outputs(
    cohort: nn.Module, params: Params, model_state: ModelState, images: jax.Array
) -> tuple[Any, ModelState]:
    """Every network's outputs in training mode, and the state with updated batch statistics.

    They are what the cohort returns: a tuple of `Outputs` where networks are plain.
    """
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    outputs, updated = cohort.apply(variables, images, train=True, mutable=["batch_stats"])
    return outputs, model_state | {"batch_stats": updated.get("batch_stats", {})}


def evaluation_outputs(
    cohort: nn.Module, params: Params, model_state: ModelState, images: jax.Array
) -> Any:
    """As `train_outputs`, in evaluation mode: the state does not change."""
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    return outputs_of(cohort, variables, images, train=False)


def predict_cohort(
    cohort: nn.Module, params: Params, model_state: ModelState, images: jax.Array
) -> dict[str, jax.Array]:
    """`network_0`, `network_1`, ... and, from two networks on, `ensemble`: their mean logits."""
    outputs = evaluation_outputs(cohort, params, model_state, images)
    logits = {f"network_{i}": output.logits for i, output in enumerate(outputs)}
    if len(outputs) > 1:
        logits["ensemble"] = mean_logits(outputs)
    return logits


def mean_logits(outputs: Sequence[Outputs]) -> jax.Array:
    """`[B, N]`, the mean of the logits of all networks."""
    return numerics.total(output.logits for output in outputs) / len(outputs)


def cohort_embeddings(
    cohort: nn.Module, params: Params, model_state: ModelState, images: jax.Array
) -> dict[str, jax.Array]:
    """`network_0`, `network_1`, ...: embeddings `[B, D]`, in evaluation mode."""
    outputs = evaluation_outputs(cohort, params, model_state, images)
    return {f"network_{i}": output.embedding for i, output in enumerate(outputs)}


def cohort_parts(cohort: nn.Module) -> dict[str, Part]:
    """`Method.parts` of the parameters that `init_cohort` makes."""
    return {f"cohort/{path}": part for path, part in network_parts(cohort).items()}


def image_keys(key: jax.Array, count: int, axis_name: str | None) -> jax.Array:
    """Keys `[count]` of this device's images, the same ones on any number of devices.

    Args:
      key: of the step and this device.
      count: images of this device.
      axis_name: the mapped device axis, or None.
    """
    first: jax.Array | int = 0
    if axis_name is not None:
        data = jax.lax.all_gather(jax.random.key_data(key), axis_name)[0]
        key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
        first = jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def check_nothing_shared(cohort: Cohort, name: str) -> None:
    """Checks that the networks of a method that adds heads to them share no stages.

    Args:
      cohort: the networks.
      name: of the method, for the message.

    Raises:
      UserError: they share stages.
    """
    if cohort.shared_stages:
        raise UserError(
            f"config.shared_stages={cohort.shared_stages}: networks of method {name!r} share "
            "nothing; set it to 0"
        )


def cohort_method(cohort: nn.Module, loss: Loss, **fields: Any) -> Method:
    """The method of a cohort that has no parameters besides, and predicts with its classifiers.

    Args:
      cohort: the networks.
      loss: of `Method`.
      **fields: further fields of `Method`, and those that replace `init`, `predict` and `parts`.
    """
    usual: dict[str, Any] = {
        "init": functools.partial(init_cohort, cohort),
        "predict": functools.partial(predict_cohort, cohort),
        "parts": cohort_parts(cohort),
    }
    return Method(loss=loss, **(usual | fields))


def summed_terms(terms: Iterable[Any]) -> Metrics:
    """Loss terms of networks, NamedTuples of `[B]`: their means over images, summed by name."""
    total = jax.tree.map(lambda *values: jnp.mean(numerics.total(values)), *terms)
    return total._asdict()


def classification(outputs: Sequence[Outputs], labels: jax.Array) -> tuple[jax.Array, Metrics]:
    """Cross entropy summed over networks (the mean over images), and each network's accuracy."""
    total = numerics.total(
        jnp.mean(losses.cross_entropy(output.logits, labels)) for output in outputs
    )
    metrics = {"cross_entropy": total}
    for i, output in enumerate(outputs):
        metrics[f"network_{i}/accuracy"] = jnp.mean(output.logits.argmax(-1) == labels)
    return total, metrics
