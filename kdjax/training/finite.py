"""Checks on the device that a training state is finite, and the error if it is not."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError
from kdjax.training.step import TrainState
from kdjax.tree import leaves

_PARAMS = "params/"
_NAMES_SHOWN = 4  # in the message


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


def not_finite_error(step: int, names: Sequence[str], last_good: int | None) -> UserError:
    """The error of a run with values that are not finite.

    Args:
      step: the step at which they are not.
      names: of the values.
      last_good: step of the latest checkpoint, or None.
    """
    kept = f"the last good checkpoint is step {last_good}" if last_good else "nothing was saved yet"
    where = " in another --workdir" if last_good else ""
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return UserError(
        f"not finite at step {step}: {shown}; {kept}; lower config.optimizer.learning_rate "
        f"or add config.optimizer.warm_up_epochs{where}"
    )


@jax.jit
def _finite(squared: list[jax.Array], others: list[jax.Array]) -> jax.Array:
    arrays = [*map(jnp.square, squared), *others]
    return jnp.stack([jnp.isfinite(array).all() for array in arrays])
