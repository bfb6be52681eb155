"""Whether a state is finite, told on the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.tree import leaves


def not_finite(state: Any) -> list[str]:
    """The paths of the arrays of a tree that have an infinity or NaN.

    Args:
      state: device arrays, replicated where there are several devices.
    """
    arrays = {
        path: leaf
        for path, leaf in leaves(state).items()
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    if not arrays:
        return []
    finite = np.asarray(_finite(list(arrays.values())))
    return [path for path, good in zip(arrays, finite, strict=True) if not good]


@jax.jit
def _finite(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(array).all() for array in arrays])
