"""Choice of the filters, or weights, to prune: from scores to masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.pruning import plan as plans
from kdjax.pruning.criteria import ranks
from kdjax.pruning.plan import Plan

Masks = dict[str, jax.Array]


class Unit(NamedTuple):
    """A set of filters, or of the weights of a kernel, that is ranked within a layer.

    Attributes:
      name: the name of the group.
      shape: the shape of the mask: `(C,)` for filters, the kernel's for weights.
      removed: the number of filters that an earlier compaction removed.
      scored: paths of the leaves from which the scores are computed.
      masked: paths of the leaves that are multiplied by the mask, broadcast from its last axis.
      score: scored leaves -> (scores, which are exactly zero), both of `shape`.
      settled: paths of leaves that are zeroed where the mask is hard, or in the last epoch, and
        multiplied by a decay above 0 where it is soft.
      consumers: paths of leaves whose last axis but one is zeroed where the mask is hard.
      filters_first: whether the leaves have their filters on the first axis; they are turned.
    """

    name: str
    shape: tuple[int, ...]
    removed: int
    scored: tuple[str, ...]
    masked: tuple[str, ...]
    score: Callable[[Sequence[jax.Array]], tuple[jax.Array, jax.Array]]
    settled: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    filters_first: bool = False

    @property
    def size(self) -> int:
        """The number of filters or weights."""
        size = 1
        for length in self.shape:
            size *= length
        return size


def check(plan: Plan, units: Sequence[Unit]) -> None:
    """Checks that a plan prunes at least one filter, and not all filters of a unit.

    Raises:
      ValueError: it prunes none, or too many.
    """
    pruned = sum(int(_numbers(plan, pool)[0].max()) for pool in _pools(plan, units))
    if pruned + sum(unit.removed for unit in units) == 0:
        widest = max(units, key=lambda unit: unit.size)
        raise ValueError(
            f"rate={plan.rate.max():g} prunes nothing: not one of the {widest.size} of "
            f"{widest.name!r}, the widest layer"
        )


def choose(
    plan: Plan,
    units: Sequence[Unit],
    leaves: Mapping[str, jax.Array],
    hard: Masks,
    epoch: jax.Array | int,
) -> tuple[Masks, Masks]:
    """The masks of kept and of hard-pruned filters after an epoch.

    Filters are pruned in this order: those that are hard-pruned already, those that are exactly
    zero (pruning them has no effect), then the others by ascending score; ties by index.

    Args:
      plan: the tabulated settings.
      units: the units to prune.
      leaves: the scored leaves by path.
      hard: the masks of hard-pruned filters so far, bool of the units' shapes, by name.
      epoch: index into the plan's tables.
    """
    kept: Masks = {}
    hard_masks: Masks = {}
    for pool in _pools(plan, units):
        pruned_number, hard_number = (jnp.asarray(n)[epoch] for n in _numbers(plan, pool))
        keys = [_keys(unit, leaves, hard[unit.name], len(pool) > 1) for unit in pool]
        rank = ranks(jnp.concatenate([key.ravel() for key in keys]))
        start = 0
        for unit in pool:
            unit_rank = rank[start : start + unit.size].reshape(unit.shape)
            hard_masks[unit.name] = hard[unit.name] | (unit_rank < hard_number)
            kept[unit.name] = ~(hard_masks[unit.name] | (unit_rank < pruned_number))
            start += unit.size
    return kept, hard_masks


def _pools(plan: Plan, units: Sequence[Unit]) -> list[Sequence[Unit]]:
    """Sets of units that are ranked together."""
    return [units] if plan.scope == "global" else [[unit] for unit in units]


def _numbers(plan: Plan, pool: Sequence[Unit]) -> tuple[np.ndarray, ...]:
    name = pool[0].name if len(pool) == 1 else "the network"
    size, removed = sum(unit.size for unit in pool), sum(unit.removed for unit in pool)
    return plans.numbers(plan, name, size, removed, keep=len(pool))


def _keys(unit: Unit, leaves: Mapping[str, jax.Array], hard: jax.Array, across: bool) -> jax.Array:
    """The sort keys of a unit, of its shape; `across` units, scores are normalized per layer."""
    scores, zero = unit.score([leaves[path] for path in unit.scored])
    if scores.shape != unit.shape:
        raise ValueError(
            f"the criterion returned {scores.shape} for {unit.name!r}, not {unit.shape}"
        )
    if across:
        # Kernels differ in size and scale, and BatchNorm removes the scale: scores are compared
        # relative to those of the layer (Molchanov et al. 2017, 1611.06440, divide by the norm of
        # the layer's scores; the mean is independent of the number of filters).
        size = jnp.abs(scores)
        remaining = ~(zero | hard)
        mean = jnp.sum(size, where=remaining) / jnp.maximum(remaining.sum(), 1)
        scores = scores / jnp.where(mean > 0, mean, 1)
    scores = jnp.where(zero, jnp.finfo(scores.dtype).min, scores)
    keys = jnp.where(hard, -jnp.inf, scores)
    if across:
        best = jnp.arange(unit.size).reshape(unit.shape) == jnp.argmax(keys)
        keys = jnp.where(best, jnp.inf, keys)
    return keys
