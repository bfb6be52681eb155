"""Online knowledge distillation with diverse peers: OKDDip (Chen et al., AAAI 2020)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.methods import base
from kdjax.methods.registry import Clock, register
from kdjax.models import Cohort, PeerAttentionCohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Okddip:
    """`config.okddip`."""

    temperature: float = setting(3.0, "T of `losses.okddip`", above=0)
    ramp_up_epochs: int = setting(
        80, "in which the weight of the distillation rises from exp(-5) to 1", at_least=1
    )


@register(
    "okddip",
    settings=Okddip,
    family="online",
    networks=2,
    source="Chen et al., AAAI 2020, arXiv 1912.00350, section 3",
    paper="ResNet-32 71.09; one of four 74.24, ensemble 76.27 (MCL-OKD)",
)
def okddip(cohort: Cohort, settings: Okddip, *, clock: Clock) -> base.Method:
    """Cross entropy; peers that learn from each other by attention, a leader that learns from them.

    The last network is the leader. It predicts `network_i` and `ensemble`, the mean of all logits.

    Args:
      cohort: networks, of one architecture where they share stages; attention is added.
      settings: see `Okddip`.
      clock: counts the epochs of the ramp.

    Raises:
      UserError: fewer than two networks; by `init`, embeddings of different lengths.
    """
    peers = PeerAttentionCohort(cohort.networks, shared_stages=cohort.shared_stages)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        outputs, model_state = base.train_outputs(peers, params, model_state, batch["image"])
        total, metrics = base.classification(outputs.networks, batch["label"])
        *logits, leader = [output.logits for output in outputs.networks]
        targets = list(jnp.swapaxes(outputs.targets, 0, 1))
        terms = losses.okddip(logits, targets, leader, temperature=settings.temperature)
        weight = losses.consistency_weight(
            batch["step"] // clock.steps_per_epoch, epochs=settings.ramp_up_epochs
        )
        terms = jax.tree.map(jnp.mean, terms)
        metrics |= {"distillation": terms.peers, "leader_distillation": terms.leader}
        return total + weight * sum(terms), (model_state, metrics | {"ramp_up": weight})

    return base.cohort_method(peers, loss, predict=functools.partial(_predict, peers))


def _predict(
    cohort: PeerAttentionCohort,
    params: base.Params,
    model_state: base.ModelState,
    images: jax.Array,
) -> dict[str, jax.Array]:
    outputs = base.evaluation_outputs(cohort, params, model_state, images).networks
    logits = {f"network_{i}": output.logits for i, output in enumerate(outputs)}
    return logits | {"ensemble": base.mean_logits(outputs)}
