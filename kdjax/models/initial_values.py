"""Initial values of parameters, as calls that a program of many parameters can be told by."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

# The name of the calls in a jaxpr.
CALL = "draw_initial_value"


def drawn(initializer: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """`initializer`, traced once per shape and dtype.

    flax traces the initializer of every parameter of every layer, also where the parameter exists
    (it compares the shapes). In a jaxpr a draw is one call, of the name `CALL`, and calls of one
    initializer, shape and dtype have the same jaxpr. Outside of traced functions it is
    `initializer` itself, whose values `jax.jit` rounds differently.
    """
    return _drawn(cast(Hashable, initializer))  # functions are, their protocol does not say so


@functools.lru_cache(maxsize=256)
def _drawn(initializer: nn.initializers.Initializer) -> nn.initializers.Initializer:
    def draw_initial_value(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return initializer(key, shape, dtype)

    traced = jax.jit(draw_initial_value, static_argnums=(1, 2))

    def draw(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        if not isinstance(key, jax.core.Tracer):
            return initializer(key, shape, dtype)
        return traced(key, tuple(shape), dtype)

    return draw


def variance_scaling(
    scale: float, mode: Literal["fan_in", "fan_out"], distribution: Literal["normal", "uniform"]
) -> nn.initializers.Initializer:
    """`flax.linen.initializers.variance_scaling` of kernels `[..., in, out]`, drawn as a matrix.

    The values are the same. Of loops over the height and width of a kernel, LLVM makes up to a
    megabyte of code, in seconds.

    Args:
      scale: the variance times the fan.
      mode: 'fan_in' or 'fan_out'.
      distribution: 'normal' or 'uniform'.
    """
    of_matrix = nn.initializers.variance_scaling(scale, mode, distribution)

    def initializer(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        *window, inputs, outputs = shape
        taps = math.prod(window)
        matrix = (taps * inputs, outputs) if mode == "fan_in" else (inputs, taps * outputs)
        return of_matrix(key, matrix, dtype).reshape(shape)

    return initializer


@functools.lru_cache(maxsize=256)
def uniform(bound: float) -> nn.initializers.Initializer:
    """The initializer of values that are uniform in +-`bound`."""

    def initializer(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        values = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
        return values.reshape(shape)

    return initializer
