"""Layer-wise mutual contrastive learning (L-MCL): every stage of a network with all of the others'.

Embeddings are given by network and stage, `embeddings[a][k]` `[B, D]`; weights by ordered pair of
networks, `weights[a, b]` `[stages of a, stages of b, B]`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.losses.classes import class_labels
from kdjax.losses.contrastive import Contrast, Likelihood, MutualContrast
from kdjax.losses.distillation import kd
from kdjax.numerics import at_least_float32, total, unit

Weights = Mapping[tuple[int, int], jax.Array]


def layer_weights(projections: Sequence[Sequence[jax.Array]]) -> dict[tuple[int, int], jax.Array]:
    """How much every pair of stages of two networks counts, for every image.

    `w_ab[k, z] = sigmoid(cos(p_ak, p_bz))`, between 0.27 and 0.73.

    Source: L-MCL, Yang et al., TPAMI 2023; checked against `LossWeightNetwork` in
    `models/meta_network.py` of the L-MCL repository.

    Args:
      projections: of every network, by stage, `[B, D]`: what the meta network makes of their
        embeddings. They need not be of unit length.

    Returns:
      `[stages of a, stages of b, B]` for every ordered pair of networks (a, b), a != b.
    """
    units = [unit(jnp.stack([at_least_float32(x) for x in stages])) for stages in projections]
    return {
        (a, b): jax.nn.sigmoid(_products("kbd,zbd->kzb", units[a], units[b]))
        for a, b in itertools.permutations(range(len(units)), 2)
    }


def layer_contrast(
    embeddings: Sequence[Sequence[jax.Array]],
    weights: Weights,
    labels: jax.Array,
    *,
    temperature: float,
    kd_temperature: float,
    axis_name: str | None = None,
) -> MutualContrast:
    """The in-batch losses of L-MCL: `mutual_contrast` of all pairs of stages, weighted by image.

    For every ordered pair of networks (a, b) and all their stages k and z, the four terms of
    `mutual_contrast([v_ak, v_bz])` are multiplied by `weights[a, b][k, z]`. The sum over ordered
    pairs counts each pair of stages twice, as the official code does; so vcl of stage k of network
    a counts once for every stage of the other networks and either order.

    Source: L-MCL, Yang et al., TPAMI 2023; checked against `Sup_MCL_Loss_Meta` in
    `losses/cifar_sup_layer_mcl_meta_loss.py` of the L-MCL repository.

    Args:
      embeddings: unit vectors `[B, D]` by network and stage, of M >= 2 networks.
      weights: see `layer_weights`.
      labels: `[B]` integer classes.
      temperature: tau > 0. Official code: 0.1.
      kd_temperature: T > 0 of the soft terms. Official code: 3.
      axis_name: of `mutual_contrast`.

    Returns:
      `MutualContrast` of four `[B]` arrays, in nats; the soft terms include T squared.

    Raises:
      ValueError: fewer than two networks, or labels, embeddings or weights of other shapes.
    """
    stacked = _stacked(embeddings, weights)
    labels = class_labels(labels, stacked[0].shape[1:2], of="embeddings")
    flat = [stage for stages in stacked for stage in stages]
    contrast = Contrast(flat, labels, axis_name, True)
    ends = list(itertools.accumulate(len(stages) for stages in stacked))
    columns = [
        jnp.stack(contrast.columns[end - len(stages) : end])
        for end, stages in zip(ends, stacked, strict=True)
    ]
    within = [
        _products("kbd,knd->kbn", rows, others) / temperature
        for rows, others in zip(stacked, columns, strict=True)
    ]
    sums = _nothing(labels, within[0].dtype)
    for a, b in itertools.combinations(range(len(stacked)), 2):
        across = _products("kbd,znd->kzbn", stacked[a], columns[b]) / temperature
        if axis_name is None:
            back = across.swapaxes(-1, -2)
        else:
            back = _products("zbd,knd->kzbn", stacked[b], columns[a]) / temperature
        terms = _pair(
            (within[a], within[b]),
            (across, back),
            contrast.negative_log_likelihood,
            contrast.negative_log_likelihood,
            kd_temperature,
        )
        weight = weights[a, b] + weights[b, a].swapaxes(0, 1)
        sums = _added(sums, terms, weight)
    return sums


def layer_memory_contrast(
    embeddings: Sequence[Sequence[jax.Array]],
    weights: Weights,
    positives: jax.Array,
    negatives: jax.Array,
    memories: Sequence[jax.Array],
    *,
    temperature: float,
    kd_temperature: float,
    shared_negatives: bool = False,
) -> MutualContrast:
    """The losses of L-MCL with a memory bank per network, for large training sets: ImageNet's.

    As `layer_contrast`, but an anchor is compared with remembered images. The columns of
    `<v_ak, m_b>` are the image itself, P others of its class and K of other classes. Of icl the
    first 1 + P are positives; vcl leaves the image itself out; the soft terms compare the
    distributions over the same columns. Gradients do not reach the memories.

    Source: L-MCL, Yang et al., TPAMI 2023; checked against `ContrastMemory` in
    `losses/imagenet_sup_layer_mcl_meta_loss.py` of the L-MCL repository.

    Args:
      embeddings: unit vectors `[B, D]` by network and stage, of M >= 2 networks.
      weights: see `layer_weights`.
      positives: `[B, 1 + P]` image numbers: the image itself, and P others of its class.
      negatives: `[B, K]` image numbers, of other classes.
      memories: M arrays `[images, D]`, one per network; see `updated_memories`.
      temperature: tau > 0. Official code: 0.07.
      kd_temperature: T > 0 of the soft terms. Official code: 3.
      shared_negatives: whether, as by a slip of the official code, both networks of an ordered pair
        (a, b) are compared with the memory of a in vcl and soft vcl.

    Returns:
      `MutualContrast` of four `[B]` arrays, in nats; the soft terms include T squared.

    Raises:
      ValueError: fewer than two networks, or embeddings, weights or memories of other shapes.
    """
    stacked = _stacked(embeddings, weights)
    if len(memories) != len(stacked):
        raise ValueError(f"{len(stacked)} networks need as many memories, got {len(memories)}")
    columns = jnp.concatenate([positives, negatives], axis=1)
    count = positives.shape[1] - 1
    remembered = [
        jax.lax.stop_gradient(jnp.asarray(memory)[columns]).astype(rows.dtype)
        for memory, rows in zip(memories, stacked, strict=True)
    ]

    def scores(a: int, b: int) -> jax.Array:
        return _products("kbd,bnd->kbn", stacked[a], remembered[b]) / temperature

    sums = _nothing(positives[:, 0], stacked[0].dtype)
    orders = itertools.permutations if shared_negatives else itertools.combinations
    for a, b in orders(range(len(stacked)), 2):
        within = [scores(a, a), scores(b, a if shared_negatives else b)]
        stages = len(stacked[a]), len(stacked[b])
        to_b, to_a = scores(a, b)[:, None], scores(b, a)[None]
        across = [jnp.broadcast_to(x, (*stages, *x.shape[2:])) for x in (to_b, to_a)]
        terms = _pair(
            [logits[..., 1:] for logits in within],
            across,
            lambda logits: _remembered_likelihood(logits, count),
            lambda logits: _remembered_likelihood(logits, count + 1),
            kd_temperature,
        )
        weight = weights[a, b]
        if not shared_negatives:  # both orders at once
            weight = weight + weights[b, a].swapaxes(0, 1)
        sums = _added(sums, terms, weight)
    return sums


def _stacked(embeddings: Sequence[Sequence[jax.Array]], weights: Weights) -> list[jax.Array]:
    """`[stages, B, D]` of every network, if there are weights for all of their pairs."""
    if len(embeddings) < 2:
        raise ValueError(f"L-MCL compares two networks or more, got {len(embeddings)}")
    shapes = {jnp.shape(stage) for stages in embeddings for stage in stages}
    if len(shapes) != 1 or len(*shapes) != 2:
        listed = ", ".join(map(str, sorted(shapes)))
        raise ValueError(f"L-MCL compares embeddings [B, D] of one shape, got {listed}")
    stacked = [jnp.stack([at_least_float32(stage) for stage in stages]) for stages in embeddings]
    for a, b in itertools.permutations(range(len(stacked)), 2):
        wanted = (len(stacked[a]), *stacked[b].shape[:2])
        given = jnp.shape(weights[a, b]) if (a, b) in weights else None
        if given != wanted:
            raise ValueError(
                f"L-MCL needs weights of shape {wanted} for networks {a}, {b}, got {given}"
            )
    return stacked


def _products(formula: str, first: jax.Array, second: jax.Array) -> jax.Array:
    # The default precision of some devices is below float32.
    return jnp.einsum(formula, first, second, precision=jax.lax.Precision.HIGHEST)


def _pair(
    within: Sequence[jax.Array],
    across: Sequence[jax.Array],
    likelihood_within: Likelihood,
    likelihood_across: Likelihood,
    temperature: float,
) -> MutualContrast:
    """The terms `[stages of a, stages of b, B]` of two networks.

    Args:
      within: scores of each network, `[its stages, B, columns]`.
      across: scores of a against b and of b against a, `[stages of a, stages of b, B, columns]`.
      likelihood_within, likelihood_across: negative log likelihood of scores, over the last axis.
      temperature: T of the soft terms.
    """
    first, second = jnp.broadcast_arrays(within[0][:, None], within[1][None])
    alone = [likelihood_within(logits) for logits in within]
    return MutualContrast(
        vcl=alone[0][:, None] + alone[1][None],
        soft_vcl=_both_ways(first, second, temperature),
        icl=total(map(likelihood_across, across)),
        soft_icl=_both_ways(across[0], across[1], temperature),
    )


def _both_ways(first: jax.Array, second: jax.Array, temperature: float) -> jax.Array:
    return kd(first, second, temperature=temperature) + kd(second, first, temperature=temperature)


def _remembered_likelihood(logits: jax.Array, positives: int) -> jax.Array:
    """Mean over the first columns of -log softmax, over the last axis."""
    return -jnp.mean(jax.nn.log_softmax(logits)[..., :positives], axis=-1)


def _nothing(rows: jax.Array, dtype: Any) -> MutualContrast:
    return MutualContrast(*(jnp.zeros(rows.shape, dtype) for _ in MutualContrast._fields))


def _added(sums: MutualContrast, terms: MutualContrast, weight: jax.Array) -> MutualContrast:
    """`sums`, plus the weighted terms summed over pairs of stages."""
    return jax.tree.map(lambda sum_, term: sum_ + jnp.sum(weight * term, (0, 1)), sums, terms)
