"""Precision, lengths and sums: what losses, pruning and methods share. Imports jax alone."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

# Vectors shorter than this have no direction.
SHORTEST = 1e-12


def accumulation_dtype(dtype: Any) -> jnp.dtype:
    """float32 for every narrower type, float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Casts half precision up: a KL of nearly equal logits is wrong by its own size in bfloat16."""
    x = jnp.asarray(x)
    return x.astype(accumulation_dtype(x.dtype))


def length(x: jax.Array, *, axis: int = -1, keepdims: bool = False) -> jax.Array:
    """Euclidean lengths along `axis`, with a gradient of 0 where a length is 0.

    Args:
      x: an array of float32 or float64.
      axis: the axis along which the vectors lie.
      keepdims: whether the axis stays, with size 1.
    """
    return safe_sqrt(jnp.sum(jnp.square(x), axis=axis, keepdims=keepdims))


def safe_sqrt(squares: jax.Array) -> jax.Array:
    """The square root of numbers >= 0, with a gradient of 0 at 0."""
    positive = squares > 0
    # The inner where keeps the square root's infinite derivative out of the gradient.
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def unit(x: jax.Array, *, axis: int = -1, epsilon: float = 0.0) -> jax.Array:
    """`x / (|x| + epsilon)` along `axis`.

    A vector shorter than 1e-12 becomes 0 and gets no gradient. (`torch.nn.functional.normalize`
    divides it by 1e-12, and its gradient too.)

    Args:
      x: an array of float32 or float64.
      axis: the axis along which the vectors lie.
      epsilon: added to the length.

    Returns:
      An array like `x`.
    """
    squares = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
    has_direction = squares > SHORTEST**2
    norm = jnp.sqrt(jnp.where(has_direction, squares, 1.0))
    return jnp.where(has_direction, x / (norm + epsilon), 0.0)


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """The sum of one array or more, from first to last."""
    return functools.reduce(operator.add, terms)


def flattened(x: jax.Array) -> jax.Array:
    """`[B, ...] -> [B, D]`, also of an empty batch."""
    return x.reshape(len(x), math.prod(x.shape[1:]))
