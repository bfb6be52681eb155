"""Collaborative learning with a tree of networks: CL-ILR (Song and Chai, NeurIPS 2018)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.registry import register
from kdjax.models import Cohort, TreeCohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class ClIlr:
    """`config.cl_ilr`."""

    temperature: float = setting(2.0, "T of `losses.cl_ilr`", above=0)
    weight: float = setting(
        0.5, "of the distillation; the labels have the rest", at_least=0, at_most=1
    )
    pair_stages: int = setting(
        1, "stages after the shared ones that every two networks have in common", at_least=1
    )
    trunk_divisor: int = setting(
        0,
        "what the gradient before the shared stages is divided by; 0: the number of pairs (the "
        "official code: always 2)",
        at_least=0,
    )


@register(
    "cl_ilr",
    settings=ClIlr,
    family="online",
    networks=2,
    source="Song and Chai, NeurIPS 2018, arXiv 1805.11761, section 3",
    paper="ResNet-32 71.09; a head of four 74.60, ensemble 75.97 (MCL-OKD)",
)
def cl_ilr(cohort: Cohort, settings: ClIlr) -> base.Method:
    """Cross entropy, and every network distilled from the mean of the others: leaves of a tree.

    All networks share their first stages, every two of them the next ones; gradients are divided
    where the tree splits. It predicts `network_i` and `ensemble`, the mean of all logits.

    Args:
      cohort: networks of one architecture that share their early stages.
      settings: see `ClIlr`.

    Raises:
      UserError: fewer than two networks, or a network with fewer stages than are to be shared.
    """
    shared, stages = cohort.shared_stages, cohort.networks[0].num_stages
    if not 1 <= shared <= stages - settings.pair_stages:
        raise UserError(
            f"config.shared_stages={shared}, config.cl_ilr.pair_stages={settings.pair_stages}: "
            f"the networks of method 'cl_ilr' share both, of {stages} stages; share at least one, "
            "and not more than there are"
        )
    tree = TreeCohort(
        cohort.networks,
        shared_stages=shared,
        pair_stages=settings.pair_stages,
        trunk_divisor=settings.trunk_divisor or None,
    )

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        outputs, model_state = base.train_outputs(tree, params, model_state, batch["image"])
        cross_entropy, metrics = base.classification(outputs, batch["label"])
        logits = [output.logits for output in outputs]
        distillation = jnp.mean(losses.cl_ilr(logits, temperature=settings.temperature))
        total = (1 - settings.weight) * cross_entropy + settings.weight * distillation
        return total, (model_state, metrics | {"distillation": distillation})

    return base.cohort_method(tree, loss, variables=_variables)


def _variables(
    params: base.Params, model_state: base.ModelState, index: int
) -> dict[str, dict[str, Any]]:
    """The variables of one network: the trunk's, those of its pair, and its own."""
    collections = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    parts = ("trunk", f"pair_{index // 2}", f"network_{index}")
    return {
        name: {key: value for part in parts for key, value in tree.get(part, {}).items()}
        for name, tree in collections.items()
    }
