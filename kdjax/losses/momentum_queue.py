"""Self-supervised MCL: queries against keys of momentum encoders, and queues of earlier keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.losses.contrastive import MutualContrast, contrast_terms
from kdjax.numerics import at_least_float32


def queue_contrast(
    queries: Sequence[jax.Array],
    keys: Sequence[jax.Array],
    queues: Sequence[jax.Array],
    *,
    temperature: float,
    kd_temperature: float,
) -> MutualContrast:
    """The losses of MCL on MoCo, for any number of networks; of one network, MoCo's.

    With the similarities `s_ab[i] = [<q_a(i), k_b(i)>, <q_a(i), queue_b[0]>, ...] / temperature`,
    of which column 0 is the positive:

        vcl       sum_a         -log softmax(s_aa[i])[0]
        icl       sum_{a != b}  -log softmax(s_ab[i])[0]
        soft_vcl  sum_{a != b}  T^2 KL(sg softmax(s_bb[i] / T) || softmax(s_aa[i] / T))
        soft_icl  sum_{a != b}  T^2 KL(sg softmax(s_ba[i] / T) || softmax(s_ab[i] / T))

    Gradients reach the queries only.

    Source: He et al., CVPR 2020, arXiv 1911.05722, equation 1; Yang et al., AAAI 2022,
    arXiv 2104.12565; checked against `moco/builder_mcl.py` of the MCL repository, `MoCo`.

    Args:
      queries: M arrays `[B, D]` of unit vectors, of the first crop.
      keys: M arrays `[B, D]` of unit vectors, of the second.
      queues: M arrays `[K, D]` of unit vectors, as they were after the step before.
      temperature: tau > 0. Paper: 0.07.
      kd_temperature: T > 0 of the soft terms, on top of tau. Official code: 3.

    Returns:
      `MutualContrast` of four `[B]` arrays, in nats; the soft terms include T squared.

    Raises:
      ValueError: shapes that do not go together.

    >>> units = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> terms = queue_contrast(
    ...     [units], [units], [jnp.zeros((3, 2))], temperature=0.5, kd_temperature=3.0
    ... )
    >>> print(terms.vcl)
    [0.340... 0.340...]
    """
    queries = [at_least_float32(query) for query in queries]
    _check(queries, keys, queues)
    similarities = {}
    for b, (key, queue) in enumerate(zip(keys, queues, strict=True)):
        for a, query in enumerate(queries):
            key, queue = (jax.lax.stop_gradient(x).astype(query.dtype) for x in (key, queue))
            positive = jnp.sum(query * key, axis=1, keepdims=True)
            negative = jnp.matmul(query, queue.T, precision=jax.lax.Precision.HIGHEST)
            similarities[a, b] = jnp.concatenate([positive, negative], axis=1) / temperature
    within = [similarities[a, a] for a in range(len(queries))]
    across = {pair: s for pair, s in similarities.items() if pair[0] != pair[1]}
    return contrast_terms(within, across, kd_temperature, _likelihood, _likelihood)


def _likelihood(similarities: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(similarities, axis=1) - similarities[:, 0]


def _check(
    queries: Sequence[jax.Array], keys: Sequence[jax.Array], queues: Sequence[jax.Array]
) -> None:
    shapes = [jnp.shape(vectors) for vectors in (*queries, *keys)]
    counted = len(queries) == len(keys) == len(queues) > 0
    if not counted or len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"queue contrast needs queries and keys [B, D] per network, got {shapes}")
    queued = [jnp.shape(queue) for queue in queues]
    if any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in queued):
        raise ValueError(f"queue contrast needs queues [K, {shapes[0][1]}], got {queued}")


def enqueue(
    queue: jax.Array, keys: jax.Array, pointer: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """A queue in which the oldest entries have given way to the keys of a step.

    Source: He et al., CVPR 2020, arXiv 1911.05722, algorithm 1.

    Args:
      queue: `[K, D]`.
      keys: `[B, D]`.
      pointer: `[]` where the oldest entry is; afterwards it is at
        `(pointer + B * devices) % K`.
      axis_name: name of the mapped device axis. With it, the keys of all devices enter, in the
        order of the global batch, so that the queue is equal on all of them. None means one device.

    Returns:
      `[K, D]`, of the queue's dtype.

    Raises:
      ValueError: more keys than the queue holds.

    >>> print(enqueue(jnp.zeros((3, 1)), jnp.array([[1.0], [2.0]]), 2).ravel())
    [2. 0. 1.]
    """
    keys = jax.lax.stop_gradient(keys)
    if axis_name is not None:
        keys = jax.lax.all_gather(keys, axis_name, tiled=True)
    if keys.shape[0] > queue.shape[0]:
        raise ValueError(f"{keys.shape[0]} keys do not fit into a queue of {queue.shape[0]}")
    places = (pointer + jnp.arange(keys.shape[0])) % queue.shape[0]
    return jnp.asarray(queue).at[places].set(keys.astype(queue.dtype))


def momentum_update(keys: Any, queries: Any, momentum: float | jax.Array) -> Any:
    """The parameters of momentum encoders, `momentum * key + (1 - momentum) * query`.

    Source: He et al., CVPR 2020, arXiv 1911.05722, equation 2.

    Args:
      keys: tree of the momentum encoders' parameters, `[...]` each.
      queries: tree of the trained encoders' parameters, of the same shapes.
      momentum: m. Paper: 0.999.

    Returns:
      A tree like `keys`, `[...]` each, through which no gradient flows.
    """
    return jax.tree.map(
        lambda key, query: jax.lax.stop_gradient(
            (momentum * key + (1 - momentum) * query).astype(key.dtype)
        ),
        keys,
        queries,
    )
