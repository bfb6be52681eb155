"""What methods have in common whose networks have heads beside their own classifier."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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
    headed = Cohort(tuple(add_heads(each) for each in cohort.networks))

    def loss(params, model_state, batch, key):
        del key
        labels = batch["label"]
        outputs, model_state = base.train_outputs(headed, params, model_state, batch["image"])
        found = [terms(each, labels)._asdict() for each in outputs]
        metrics = {term: jnp.mean(sum(each[term] for each in found)) for term in found[0]}
        total = sum(weights.get(term, 1.0) * value for term, value in metrics.items())
        for each, logits in named_logits(outputs).items():
            metrics[f"{each}/accuracy"] = jnp.mean(logits.argmax(-1) == labels)
        return total, (model_state, metrics)

    def predict(params, model_state, images):
        variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
        outputs = headed.apply(variables, images, train=False)
        found = named_logits(outputs)
        if len(outputs) > 1:
            found["ensemble"] = sum(each.backbone.logits for each in outputs) / len(outputs)
        return found

    return base.cohort_method(headed, loss, predict=predict, **fields)


def named_logits(outputs: Sequence[HeadedOutputs]) -> dict[str, jax.Array]:
    """`network_i` and `network_i/HEAD` for every network and each of its heads, `[B, N]` each."""
    found = {}
    for index, each in enumerate(outputs):
        found[f"network_{index}"] = each.backbone.logits
        found |= {f"network_{index}/{head}": logits for head, logits in head_logits(each).items()}
    return found


def head_logits(outputs: HeadedOutputs) -> dict[str, jax.Array]:
    """The logits `[B, N]` of every head of a network."""
    if isinstance(outputs, PyramidOutputs):
        return {"pyramid": outputs.logits}
    return {name: each.logits for name, each in outputs.branches.items()}
