"""Criteria: scores of the importance of filters in a layer.

A criterion is a function of a kernel `[..., C]` (at least float32) and the name of its group. It
returns the scores `[C]` of the filters on the last axis: the smallest are pruned first.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax.numerics import at_least_float32, unit
from kdjax.pruning.counting import number

Criterion = Callable[[jax.Array, str], jax.Array]

DISTANCES = ("l2", "l1", "cosine")


def l1(kernel: jax.Array, name: str = "") -> jax.Array:
    """The sum of the absolute weights of every filter, `[C]`."""
    del name  # only a random order depends on the layer
    return jnp.abs(_columns(kernel)).sum(0)


def l2(kernel: jax.Array, name: str = "") -> jax.Array:
    """The Euclidean norm of every filter, `[C]` (SFP and all that follow it)."""
    del name
    return jnp.sqrt(jnp.square(_columns(kernel)).sum(0))


def geometric_median(distance: str = "l2") -> Criterion:
    """The sum of the distances to the layer's other filters (FPGM, CVPR 2019, section 3.4).

    A filter near the geometric median of all is what the others can replace. Filters that are
    exactly zero have been pruned and are nobody's neighbors.

    Args:
      distance: 'l2', 'l1' or 'cosine' (1 - cosine similarity, as the paper's ablation; the official
        code's option of that name has no effect).
    """
    matrix = _distance(distance)

    def scores(kernel: jax.Array, name: str = "") -> jax.Array:
        del name
        columns = _columns(kernel)
        return matrix(columns) @ _alive(columns)

    return scores


def mixed(norm_rate: float, distance: str = "l2") -> Criterion:
    """FPGM-mix: a share of the filters by norm, the rest by distance.

    The floor(C * norm_rate) filters of smallest L2 norm come first, in the order of their norms.
    The others follow by the sum of their distances to one another. The paper's 40 % in all is
    `mixed(0.1)` at a rate of 0.4: 10 % by norm, 30 % by distance. Checked against
    filter-pruning-geometric-median's pruning_cifar10.py, whose scripts swap the two shares.

    Args:
      norm_rate: fraction of all filters that is chosen by norm, in [0, 1).
      distance: as in `geometric_median`.

    Raises:
      ValueError: `norm_rate` is out of range, or `distance` unknown.
    """
    matrix = _distance(distance)
    if not 0 <= norm_rate < 1:
        raise ValueError(f"norm_rate={norm_rate} is not in [0, 1)")

    def scores(kernel: jax.Array, name: str = "") -> jax.Array:
        del name
        columns = _columns(kernel)
        rank = ranks(l2(columns))
        by_norm = rank < number(columns.shape[-1], norm_rate)
        neighbors = _alive(columns) * ~by_norm
        distances = matrix(columns) @ neighbors
        # Below all distances, in the order of the norms, and growing with the weights as they do.
        scale = (distances @ neighbors) / jnp.maximum(neighbors.sum(), 1)
        below = (rank - float(columns.shape[-1])) * jnp.where(scale > 0, scale, 1)
        return jnp.where(by_norm, below, distances)

    return scores


def random(seed: int) -> Criterion:
    """A random order of the filters, another one in every layer and the same in every epoch."""

    def scores(kernel: jax.Array, name: str = "") -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
        return jax.random.uniform(key, kernel.shape[-1:])

    return scores


def ranks(scores: jax.Array) -> jax.Array:
    """The place of every score in ascending order, int32 `[C]`; equal ones by their index."""
    return jnp.argsort(jnp.argsort(scores, stable=True), stable=True).astype(jnp.int32)


def _columns(kernel: jax.Array) -> jax.Array:
    """`[..., C]` as `[D, C]`."""
    return at_least_float32(kernel).reshape(-1, kernel.shape[-1])


def _alive(columns: jax.Array) -> jax.Array:
    return jnp.any(columns != 0, axis=0).astype(columns.dtype)


def _distance(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function `[D, C] -> [C, C]` of distances between columns."""
    functions = {"l2": _euclidean, "l1": _absolute, "cosine": _cosine}
    if name not in functions:
        raise ValueError(f"distance={name!r} is unknown; use one of {', '.join(DISTANCES)}")
    return functions[name]


def _products(columns: jax.Array) -> jax.Array:
    return jnp.matmul(columns.T, columns, precision=jax.lax.Precision.HIGHEST)


def _euclidean(columns: jax.Array) -> jax.Array:
    # Distances do not depend on the origin; near the middle the products cancel least.
    columns = columns - columns.mean(1, keepdims=True)
    products = _products(columns)
    squares = jnp.diagonal(products)
    return jnp.sqrt(jnp.maximum(squares[:, None] + squares - 2 * products, 0))


def _absolute(columns: jax.Array) -> jax.Array:
    # One filter against all others at a time: [D, C], never [D, C, C].
    return jax.lax.map(lambda one: jnp.abs(columns - one[:, None]).sum(0), columns.T)


def _cosine(columns: jax.Array) -> jax.Array:
    return jnp.maximum(1 - _products(unit(columns, axis=0)), 0)
