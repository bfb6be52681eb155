"""Methods whose networks have auxiliary heads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import numerics
from kdjax.methods import base
from kdjax.models import BranchedOutputs, Cohort, PyramidOutputs, StagedNetwork

HeadedOutputs = BranchedOutputs | PyramidOutputs


def method_with_heads(
    cohort: Cohort,
    name: str,
    add_heads: Callable[[StagedNetwork], nn.Module],
    terms: Callable[[Any, jax.Array], Any],
    weights: Mapping[str, float],
    **fields: Any,
) -> base.Method:
    """Networks that get heads and learn, each for itself, from labels and from within.

    It predicts `network_i` and, of every head, `network_i/branchk` or `network_i/pyramid`; heads
    are trained with their network and are not needed afterwards.

    Args:
      cohort: networks without heads.
      name: of the method, for errors.
      add_heads: makes `Branched` or `Pyramid` of a network.
      terms: `(outputs, labels) -> NamedTuple` of losses `[B]` of one network.
      weights: of these by name; 1 for those that are left out.
      **fields: of `Method`, which say what was added.

    Raises:
      UserError: networks are to share stages.
    """
    base.check_nothing_shared(cohort, name)
    headed = Cohort(tuple(add_heads(network) for network in cohort.networks))

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        labels = batch["label"]
        outputs, model_state = base.train_outputs(headed, params, model_state, batch["image"])
        network_terms = [terms(network_outputs, labels)._asdict() for network_outputs in outputs]
        metrics = {
            term: jnp.mean(numerics.total(values[term] for values in network_terms))
            for term in network_terms[0]
        }
        total = numerics.total(weights.get(term, 1.0) * value for term, value in metrics.items())
        for output_name, logits in named_logits(outputs).items():
            metrics[f"{output_name}/accuracy"] = jnp.mean(logits.argmax(-1) == labels)
        return total, (model_state, metrics)

    def predict(
        params: base.Params, model_state: base.ModelState, images: jax.Array
    ) -> dict[str, jax.Array]:
        outputs = base.evaluation_outputs(headed, params, model_state, images)
        logits = named_logits(outputs)
        if len(outputs) > 1:
            logits["ensemble"] = base.mean_logits(
                [network_outputs.backbone for network_outputs in outputs]
            )
        return logits

    return base.cohort_method(headed, loss, predict=predict, **fields)


def named_logits(outputs: Sequence[HeadedOutputs]) -> dict[str, jax.Array]:
    """`network_i` and `network_i/HEAD` for every network and each of its heads, `[B, N]` each."""
    logits = {}
    for index, network_outputs in enumerate(outputs):
        logits[f"network_{index}"] = network_outputs.backbone.logits
        logits |= {
            f"network_{index}/{head}": head_output
            for head, head_output in head_logits(network_outputs).items()
        }
    return logits


def head_logits(outputs: HeadedOutputs) -> dict[str, jax.Array]:
    """The logits `[B, N]` of every head of a network."""
    if isinstance(outputs, PyramidOutputs):
        return {"pyramid": outputs.logits}
    return {name: branch.logits for name, branch in outputs.branches.items()}
