"""Online distillation among the branches of one network: ONE, CL-ILR and OKDDip."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.classes import same_logits
from kdjax.losses.distillation import kd
from kdjax.numerics import at_least_float32, total


def one(
    branch_logits: Sequence[jax.Array], ensemble_logits: jax.Array, *, temperature: float
) -> jax.Array:
    """On-the-fly native ensemble (ONE): every branch is distilled from the gated ensemble.

    `sum_m T^2 KL(sg p_ensemble || p_m)`; branches and ensemble also learn from labels.

    Source: Lan et al., NeurIPS 2018, arXiv 1806.04606; checked against `main_cifar_one.py` of the
    MCL-OKD repository.

    Args:
      branch_logits: M >= 1 arrays `[..., N]`.
      ensemble_logits: `[..., N]`, the gate's weighted sum of them; a constant.
      temperature: T > 0. Official code: 2 in `main_cifar_one.py`.

    Returns:
      `[...]`, in nats: summed over the branches, T squared included.

    Raises:
      ValueError: no branches, or shapes that differ.
    """
    if not len(branch_logits):
        raise ValueError("ONE needs the logits of at least one branch")
    return total(kd(logits, ensemble_logits, temperature=temperature) for logits in branch_logits)


def cl_ilr(logits: Sequence[jax.Array], *, temperature: float) -> jax.Array:
    """Collaborative learning (CL-ILR): every head is distilled from the mean of the other heads.

    `sum_m T^2 KL(softmax(sg mean_{n != m} logits_n / T) || softmax(logits_m / T))`. The official
    script weighs this and the cross entropies by 0.5 each.

    Source: Song and Chai, NeurIPS 2018, arXiv 1805.11761; checked against `main_cifar_cl_ilr.py` of
    the MCL-OKD repository.

    Args:
      logits: M >= 2 arrays `[..., N]`.
      temperature: T > 0.

    Returns:
      `[...]`, in nats: summed over the heads, T squared included.

    Raises:
      ValueError: fewer than two heads, or shapes that differ.
    """
    if len(logits) < 2:
        raise ValueError(f"CL-ILR needs at least two heads, got {len(logits)}")
    for head in logits[1:]:
        same_logits(head, logits[0])
    wide = [at_least_float32(head) for head in logits]
    terms = []
    for index, head in enumerate(wide):
        others = [other for other in range(len(wide)) if other != index]
        mean = total(wide[other] for other in others) / len(others)
        terms.append(kd(head, mean, temperature=temperature))
    return total(terms)


class Okddip(NamedTuple):
    """The terms of OKDDip's distillation, `[...]` each: of the peers, summed, and of the leader."""

    peers: jax.Array
    leader: jax.Array


def okddip(
    peer_logits: Sequence[jax.Array],
    attended_logits: Sequence[jax.Array],
    leader_logits: jax.Array,
    *,
    temperature: float,
) -> Okddip:
    """Two-level distillation with diverse peers (OKDDip).

        peers   sum_m T^2 KL(p~_m || p_m)        p~_m of the logits that peer m attends to
        leader  T^2 KL(p_mean || p_leader)       p_mean of the mean of the peers' logits

    Gradients reach both sides of the divergences: the attention's queries and keys have no other.

    Source: Chen et al., AAAI 2020, arXiv 1912.00350; checked against `main_cifar_okddip.py` of the
    MCL-OKD repository.

    Args:
      peer_logits: M >= 1 arrays `[..., N]`.
      attended_logits: M arrays `[..., N]`: for every peer the weighted sum of all peers' logits.
      leader_logits: `[..., N]`.
      temperature: T > 0. Official code: 3.

    Returns:
      `peers` and `leader`, `[...]` each, in nats, T squared included; the loss is their sum.

    Raises:
      ValueError: other numbers of arrays, or shapes that differ.
    """
    if not len(peer_logits) or len(peer_logits) != len(attended_logits):
        raise ValueError(
            f"OKDDip needs a target for every peer, got {len(peer_logits)} peers and "
            f"{len(attended_logits)} targets"
        )
    for peer in peer_logits[1:]:
        same_logits(peer, peer_logits[0])
    distill = functools.partial(kd, temperature=temperature, stop_teacher=False)
    mean = total(at_least_float32(peer) for peer in peer_logits) / len(peer_logits)
    return Okddip(total(map(distill, peer_logits, attended_logits)), distill(leader_logits, mean))


def consistency_weight(epoch: int | jax.Array, *, epochs: int) -> jax.Array:
    """The ramp-up of OKDDip's distillation, `exp(-5 (1 - epoch / epochs)^2)`, then 1.

    Source: `get_current_consistency_weight` in `main_cifar_okddip.py` of the MCL-OKD repository,
    after Laine and Aila, ICLR 2017, arXiv 1610.02242.

    Args:
      epoch: `[]`, from 0.
      epochs: length of the ramp. Official code: 80.

    Returns:
      `[]`, from exp(-5) to 1.
    """
    phase = 1 - jnp.clip(jnp.asarray(epoch, jnp.result_type(float)), 0, epochs) / epochs
    return jnp.exp(-5 * jnp.square(phase))
