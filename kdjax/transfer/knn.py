"""Classification by weighted nearest neighbors (Wu et al., CVPR 2018, arXiv 1805.01978)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdjax.errors import UserError
from kdjax.numerics import unit


def check_neighbors(k: int, images: int, where: str) -> None:
    """Checks that there are as many neighbors as are asked for.

    Args:
      k: number of neighbors.
      images: number of labeled images.
      where: the flag or setting that `k` comes from, for the message.

    Raises:
      UserError: `k` is not in 1..`images`.
    """
    if not 1 <= k <= images:
        raise UserError(f"{where}={k}: must be 1..{images}, the number of labeled images")


@functools.partial(jax.jit, static_argnames=("num_classes", "k", "chunk"))
def knn_probabilities(
    queries: jax.Array,
    bank: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.07,
    chunk: int = 256,
) -> jax.Array:
    """Class probabilities of queries by a weighted vote of their k nearest neighbors.

    Features are divided by their lengths, and a neighbor's vote for its class is proportional to
    exp(cosine similarity / temperature) (Wu et al., CVPR 2018, section 3.4).

    Args:
      queries: `[Q, D]` features.
      bank: `[M, D]` features of the labeled images.
      labels: `[M]` their classes.
      num_classes: N.
      k: number of neighbors, 1..M.
      temperature: of the weights.
      chunk: how many queries are compared with the bank at once; similarities take
        `chunk * M` floats, whatever Q is.

    Returns:
      `[Q, N]` float32, rows that sum to 1. The class is their argmax.
    """
    bank, queries = _directions(bank), _directions(queries)

    def vote(rows: jax.Array) -> jax.Array:
        similarities, indices = _nearest(rows, bank, k)
        weights = jax.nn.softmax(similarities / temperature, axis=-1)
        members = jax.nn.one_hot(labels[indices], num_classes, dtype=jnp.float32)
        return jnp.einsum("qk,qkn->qn", weights, members, precision=jax.lax.Precision.HIGHEST)

    count, features = queries.shape
    chunk = min(chunk, count)
    padded = jnp.pad(queries, ((0, -count % chunk), (0, 0)))
    votes = jax.lax.map(vote, padded.reshape(-1, chunk, features))
    return votes.reshape(-1, num_classes)[:count]


def nearest_neighbors(queries: ArrayLike, bank: ArrayLike, k: int) -> tuple[jax.Array, jax.Array]:
    """The k images of the bank whose features are most similar to those of a query.

    Args:
      queries: `[Q, D]` features; all are compared with the bank at once.
      bank: `[M, D]` features.
      k: number of neighbors, 1..M.

    Returns:
      Cosine similarities `[Q, k]`, falling, and the numbers `[Q, k]` of the images in the bank.
    """
    return _nearest(_directions(queries), _directions(bank), k)


def _directions(features: ArrayLike) -> jax.Array:
    return unit(jnp.asarray(features, jnp.float32))


def _nearest(queries: jax.Array, bank: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`nearest_neighbors` of unit vectors."""
    similarities = jnp.matmul(queries, bank.T, precision=jax.lax.Precision.HIGHEST)
    return jax.lax.top_k(similarities, k)


def knn_accuracy(
    queries: ArrayLike, query_labels: ArrayLike, bank: ArrayLike, labels: ArrayLike, **settings: Any
) -> jax.Array:
    """The part of the queries whose most probable class is their own.

    Args:
      queries: `[Q, D]` features.
      query_labels: `[Q]` their classes.
      bank: `[M, D]` features of the labeled images.
      labels: `[M]` their classes.
      **settings: of `knn_probabilities`.

    Returns:
      `[]` float32, in 0..1.
    """
    probabilities = knn_probabilities(queries, bank, labels, **settings)
    return jnp.mean(probabilities.argmax(-1) == query_labels, dtype=jnp.float32)
