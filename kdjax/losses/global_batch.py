"""This device's images beside those of the whole global batch."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.numerics import at_least_float32, flattened


def rows_and_columns(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """This device's images `[B, D]`, and the images they are related to: those of all devices."""
    x = flattened(at_least_float32(x))
    return x, x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def first_number(rows: jax.Array, axis_name: str | None) -> jax.Array | int:
    """The number in the global batch of this device's first image."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(rows)


def gathered(tree: Any, axis_name: str) -> Any:
    """Arrays of this device's images as those of the images of all devices, by one collective.

    Arrays of several types travel as one: every value keeps its bits, and gradients reach the
    images of the other devices.

    Args:
      tree: arrays `[B, ...]`, floating-point or of integers of at most 32 bits.
      axis_name: name of the mapped device axis.

    Returns:
      A tree like `tree` of arrays `[devices * B, ...]`, device after device.
    """
    arrays, structure = jax.tree.flatten(tree)
    floating = (x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.floating))
    dtype = functools.reduce(jnp.promote_types, floating, jnp.dtype(jnp.float32))
    rows = [_as_floats(flattened(x), dtype) for x in arrays]
    ends = list(itertools.accumulate(x.shape[1] for x in rows))
    everywhere = jax.lax.all_gather(jnp.concatenate(rows, axis=1), axis_name, tiled=True)
    parts = jnp.split(everywhere, ends[:-1], axis=1)
    restored = (
        _from_floats(part, x.dtype).reshape(-1, *x.shape[1:])
        for part, x in zip(parts, arrays, strict=True)
    )
    return jax.tree.unflatten(structure, restored)


# An integer travels as two floating-point numbers, its upper bits and these lower ones: float32
# holds integers of up to 24 bits.
_LOWER_BITS = 12


def _as_floats(x: jax.Array, dtype: Any) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(dtype)
    x = x.astype(jnp.int32)
    lower = x & (2**_LOWER_BITS - 1)
    return jnp.concatenate([x >> _LOWER_BITS, lower], axis=1).astype(dtype)


def _from_floats(x: jax.Array, dtype: Any) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.floating):
        return x.astype(dtype)
    upper, lower = jnp.split(x.astype(jnp.int32), 2, axis=1)
    return ((upper << _LOWER_BITS) + lower).astype(dtype)
