"""Check on the device that a training state is finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.training.step import TrainState
from kdjax.tree import leaves

_PARAMS = "params/"


def not_finite(state: TrainState) -> list[str]:
    """The paths of a state's arrays with infinities or NaNs.

    Parameters are squared first: norms, variances and weight decay compute their squares, which
    must not overflow.

    Args:
      state: the training state on the devices, replicated.
    """
    arrays = {
        path: leaf
        for path, leaf in leaves(state).items()
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    squared = {f"square of {path}": x for path, x in arrays.items() if path.startswith(_PARAMS)}
    others = {path: x for path, x in arrays.items() if not path.startswith(_PARAMS)}
    if not arrays:
        return []
    finite = np.asarray(_finite(list(squared.values()), list(others.values())))
    return [name for name, good in zip([*squared, *others], finite, strict=True) if not good]


@jax.jit
def _finite(squared: list[jax.Array], others: list[jax.Array]) -> jax.Array:
    arrays = [*map(jnp.square, squared), *others]
    return jnp.stack([jnp.isfinite(array).all() for array in arrays])
