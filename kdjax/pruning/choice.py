"""Which filters, or weights, are pruned: from scores to masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.pruning import plan as plans
from kdjax.pruning.criteria import ranks
from kdjax.pruning.plan import Plan

Masks = dict[str, jax.Array]


class Unit(NamedTuple):
    """What is ranked together within a layer: filters, or the single weights of a kernel.

    Attributes:
      name: of the group.
      shape: of its mask: `(C,)` for filters, the kernel's for weights.
      removed: how many filters an earlier compaction took away.
      scored: paths of the leaves that the scores come from.
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
        """How many there are."""
        size = 1
        for length in self.shape:
            size *= length
        return size


def check(plan: Plan, units: Sequence[Unit]) -> None:
    """Checks that a plan prunes something and leaves no unit empty.

    Raises:
      ValueError: it does not.
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
    """The masks after an epoch: what is kept, and what is pruned for good.

    Those that are hard already come first, then those that are exactly zero (pruning them changes
    nothing), then the others in the order of their scores; equal ones in the order of their index.

    Args:
      plan: the settings.
      units: what there is to prune.
      leaves: the scored leaves by their paths.
      hard: what is pruned for good so far, bool of the units' shapes, by their names.
      epoch: index into the plan's tables.
    """
    kept: Masks = {}
    gone: Masks = {}
    for pool in _pools(plan, units):
        pruned_number, hard_number = (jnp.asarray(n)[epoch] for n in _numbers(plan, pool))
        keys = [_keys(unit, leaves, hard[unit.name], len(pool) > 1) for unit in pool]
        rank = ranks(jnp.concatenate([key.ravel() for key in keys]))
        start = 0
        for unit in pool:
            of_unit = rank[start : start + unit.size].reshape(unit.shape)
            gone[unit.name] = hard[unit.name] | (of_unit < hard_number)
            kept[unit.name] = ~(gone[unit.name] | (of_unit < pruned_number))
            start += unit.size
    return kept, gone


def _pools(plan: Plan, units: Sequence[Unit]) -> list[Sequence[Unit]]:
    """Units that compete with one another."""
    return [units] if plan.scope == "global" else [[unit] for unit in units]


def _numbers(plan: Plan, pool: Sequence[Unit]):
    name = pool[0].name if len(pool) == 1 else "the network"
    size, removed = sum(unit.size for unit in pool), sum(unit.removed for unit in pool)
    return plans.numbers(plan, name, size, removed, keep=len(pool))


def _keys(unit: Unit, leaves: Mapping[str, jax.Array], hard: jax.Array, across: bool) -> jax.Array:
    """What a unit is sorted by, of its shape; `across` units, made comparable between them."""
    scores, zero = unit.score([leaves[path] for path in unit.scored])
    if scores.shape != unit.shape:
        raise ValueError(
            f"the criterion returned {scores.shape} for {unit.name!r}, not {unit.shape}"
        )
    if across:
        # Kernels differ in size and scale, and BatchNorm makes the scale meaningless: what counts
        # is the score beside the layer's others (Molchanov et al. 2017, 1611.06440, divide by the
        # norm of the layer's scores; with the mean the number of filters does not matter).
        size = jnp.abs(scores)
        alive = ~(zero | hard)
        mean = jnp.sum(size, where=alive) / jnp.maximum(alive.sum(), 1)
        scores = scores / jnp.where(mean > 0, mean, 1)
    scores = jnp.where(zero, jnp.finfo(scores.dtype).min, scores)
    keys = jnp.where(hard, -jnp.inf, scores)
    if across:
        best = jnp.arange(unit.size).reshape(unit.shape) == jnp.argmax(keys)
        keys = jnp.where(best, jnp.inf, keys)
    return keys
