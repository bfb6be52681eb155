"""The logits of L-MCL: every stage learns labels, the networks learn from ensembles of stages."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from kdjax.losses.distillation import cross_entropy, kd
from kdjax.numerics import total


class StageEnsembles(NamedTuple):
    """The terms of L-MCL's logits, each `[B]`."""

    cross_entropy: jax.Array
    distillation: jax.Array


def stage_ensembles(
    stage_logits: Sequence[Sequence[jax.Array]],
    ensembles: Sequence[jax.Array],
    labels: jax.Array,
    *,
    temperature: float,
) -> StageEnsembles:
    """The losses of L-MCL's logits: of all stages, and of each network's ensemble of its stages.

        cross_entropy  sum_m (sum_k CE(z_mk) + CE(e_m))
        distillation   sum_{m, n} T^2 KL(sg softmax(e_n / T) || softmax(z_mS / T))

    The last stage, the network itself, learns from all ensembles, its own among them.

    Source: L-MCL, Yang et al., TPAMI 2023; checked against `train` of
    `main_layer_mcl_cifar_meta.py` of the L-MCL repository.

    Args:
      stage_logits: `[B, N]` by network and stage, the network's own last.
      ensembles: `[B, N]` of every network.
      labels: `[B]` integer classes.
      temperature: T > 0. Official code: 3.

    Returns:
      Two `[B]` arrays, in nats; the distillation includes T squared.

    Raises:
      ValueError: other numbers of networks, or shapes that differ.
    """
    if not len(stage_logits) or len(stage_logits) != len(ensembles):
        raise ValueError(f"{len(stage_logits)} networks need as many ensembles: {len(ensembles)}")
    classified = [logits for stages in stage_logits for logits in stages] + list(ensembles)
    return StageEnsembles(
        total(cross_entropy(logits, labels) for logits in classified),
        total(
            kd(stages[-1], ensemble, temperature=temperature)
            for stages in stage_logits
            for ensemble in ensembles
        ),
    )
