"""This device's images beside those of the whole global batch."""

import jax

from kdjax.numerics import at_least_float32, flattened


def rows_and_columns(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """This device's images `[B, D]`, and the images they are related to: those of all devices."""
    x = flattened(at_least_float32(x))
    return x, x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def first_number(rows: jax.Array, axis_name: str | None) -> jax.Array | int:
    """The number in the global batch of this device's first image."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(rows)
