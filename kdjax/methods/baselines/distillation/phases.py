"""Training in two phases with separate optimizers, within one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# A parameter's path -> factors of its learning rate in the first and in the second phase.
Rates = Callable[[tuple[str, ...]], tuple[float, float]]


class TwoPhasesState(NamedTuple):
    """Steps made, and the state of the optimizer."""

    count: jax.Array  # type: ignore[assignment]  # of tuples it is a method
    inner: Any


def two_phases(
    inner: optax.GradientTransformation, *, first_steps: int, rates: Rates
) -> optax.GradientTransformation:
    """Two optimizers made from one; the second replaces the first after `first_steps` steps.

    A parameter's update is multiplied by its factor for the phase; with 0 it keeps its value. At
    the beginning of the second phase the floating-point state (momentum) is what it is at the very
    beginning; integers (the schedule's clock) go on.

    Args:
      inner: makes the updates of both phases.
      first_steps: length of the first phase.
      rates: see `Rates`.
    """

    def init(params: Any) -> TwoPhasesState:
        return TwoPhasesState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(
        updates: Any, state: TwoPhasesState, params: Any = None
    ) -> tuple[Any, TwoPhasesState]:
        restart = state.count == first_steps

        def restarted(fresh: jax.Array, old: jax.Array) -> jax.Array:
            floating = jnp.issubdtype(jnp.result_type(old), jnp.floating)
            return jnp.where(restart, fresh, old) if floating else old

        inner_state = jax.tree.map(restarted, inner.init(params), state.inner)
        updates, inner_state = inner.update(updates, inner_state, params)

        def scaled(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.Array) -> jax.Array:
            first, second = rates(tuple(key.key for key in path))
            return leaf * jnp.where(state.count < first_steps, first, second).astype(leaf.dtype)

        updates = jax.tree_util.tree_map_with_path(scaled, updates)
        return updates, TwoPhasesState(optax.safe_increment(state.count), inner_state)

    return optax.GradientTransformation(init, update)
