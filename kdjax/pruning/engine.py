"""The optax transformation that prunes filters or weights by a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdjax.pruning.axes import filters_first, filters_last
from kdjax.pruning.choice import Masks, Unit, check, choose
from kdjax.pruning.plan import Plan
from kdjax.tree import leaves


class PruningState(NamedTuple):
    """The state: arrays only, equal on all devices.

    Attributes:
      count: number of updates so far, int32 [].
      masks: by the groups' names, bool [C], True for the filters that the latest pruning kept.
        Before the first one, what `initial` keeps. Of weights: by path, bool of the kernel's shape.
      hard: likewise, True for what is pruned for good.
    """

    count: jax.Array  # type: ignore[assignment]  # of tuples it is a method
    masks: Masks
    hard: Masks


def transformation(
    plan: Plan, units_of: Callable[[Any], Sequence[Unit]]
) -> optax.GradientTransformation:
    """Prunes the units of the parameters as planned.

    Args:
      plan: when and how much.
      units_of: parameters -> what there is to prune, by their structure alone.
    """

    def init(params: Any) -> PruningState:
        units = units_of(params)
        check(plan, units)
        nothing = {unit.name: jnp.zeros(unit.shape, bool) for unit in units}
        # One program of all layers compiles faster than their operations one by one.
        arrays = leaves(params)
        scored = {path: arrays[path] for unit in units for path in unit.scored}

        @jax.jit
        def first(scored: Mapping[str, jax.Array]) -> tuple[Masks, Masks]:
            return choose(plan, units, _turned(scored, units, filters_last), nothing, 0)

        masks, hard = first(scored)
        return PruningState(jnp.zeros((), jnp.int32), masks, hard)

    def update(
        updates: Any, state: PruningState, params: Any = None, *, settle: bool = True, **others: Any
    ) -> tuple[Any, PruningState]:
        del others
        if params is None:
            raise ValueError("pruning needs the parameters: tx.update(updates, state, params)")
        units = units_of(params)
        _check_state(units, state)
        old, steps = (_turned(leaves(tree), units, filters_last) for tree in (params, updates))
        if missing := [
            p for unit in units for p in (*unit.masked, *unit.settled) if p not in steps
        ]:
            raise ValueError(f"the updates have no {missing[0]!r}, which is to be pruned")
        epoch = jnp.clip(state.count // plan.every, 0, plan.epochs - 1)
        count = optax.safe_increment(state.count)
        due = count % plan.every == 0

        def prune() -> tuple[Masks, Masks]:
            # Hard filters have not moved, whatever the updates say.
            after = {
                path: jnp.where(state.hard[unit.name], 0, _after(old[path], steps[path]))
                for unit in units
                for path in unit.scored
            }
            for unit in units:
                for path in after.keys() & set(unit.consumers):
                    after[path] = jnp.where(state.hard[unit.name][:, None], 0, after[path])
            return choose(plan, units, after, state.hard, epoch)

        # The sorting costs, and is not needed in most steps.
        masks, hard = jax.lax.cond(due, prune, lambda: (state.masks, state.hard))
        decay = jnp.asarray(plan.decay)[epoch] if plan.decay.any() else None
        last = due & (epoch == plan.epochs - 1)
        for unit in units:
            frozen = hard[unit.name]
            soft = due & ~masks[unit.name] & ~frozen
            for path in unit.masked:
                steps[path] = _masked_update(old[path], steps[path], soft, frozen, decay)
            gone = frozen | (last & ~masks[unit.name])
            # At a decay of 0 it stays: with all of it zero no gradient would bring a filter back.
            fading = jnp.zeros_like(soft) if decay is None else soft & (decay > 0)
            for path in unit.settled if settle else ():
                steps[path] = _masked_update(old[path], steps[path], fading, gone, decay)
        for unit in units:
            for path in unit.consumers if settle else ():
                steps[path] = jnp.where(hard[unit.name][:, None], -old[path], steps[path])
        steps = _turned(steps, units, filters_first)
        tree = jax.tree.unflatten(jax.tree.structure(updates), list(steps.values()))
        return tree, PruningState(count, masks, hard)

    return optax.GradientTransformationExtraArgs(init, update)


def initial(tx: optax.GradientTransformation, params: Any) -> Any:
    """Parameters pruned once before training, as the official code does: P_0, alpha_0, lambda_0.

    Args:
      tx: what `filter_pruning`, `weight_pruning` or one of the named methods returned.
      params: parameters before training.

    Raises:
      ValueError: another transformation, say the chain that holds it; or as that of `tx`.
    """
    state = tx.init(params)
    if not isinstance(state, PruningState):
        raise ValueError("initial() takes the pruning transformation itself, not a chain with it")

    @jax.jit
    def pruned(params: Any, state: PruningState) -> Any:
        # An update before the first one closes an epoch too, which is that of the first. Of filters
        # that are all zero `init` cannot say which were the smallest and must stay so: what belongs
        # to hard ones is left to the first update.
        state = state._replace(count=state.count - 1)
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(nothing, state, params, settle=False)
        return optax.apply_updates(params, updates)

    return pruned(params, state)


def pruning_state(opt_state: Any) -> PruningState:
    """The one `PruningState` in the state of a chain.

    Raises:
      ValueError: none, or several.
    """

    def is_pruning(node: Any) -> bool:
        return isinstance(node, PruningState)

    states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_pruning) if is_pruning(node)]
    if len(states) != 1:
        raise ValueError(f"the optimizer's state holds {len(states)} pruning states, not one")
    return states[0]


def _after(param: jax.Array, step: jax.Array) -> jax.Array:
    """The parameter after `optax.apply_updates`."""
    return jnp.asarray(param + step).astype(param.dtype)


def _masked_update(
    param: jax.Array, step: jax.Array, soft: jax.Array, hard: jax.Array, decay: jax.Array | None
) -> jax.Array:
    """The update that multiplies by `decay` where `soft`, by 0 where `hard`, by 1 elsewhere."""
    if decay is None:
        return jnp.where(soft | hard, -param, step)
    dtype = jnp.promote_types(param.dtype, jnp.float32)
    after = _after(param, step).astype(dtype)
    scaled = decay.astype(dtype) * after - param.astype(dtype)
    scaled = scaled.astype(jnp.promote_types(param.dtype, step.dtype))
    return jnp.where(hard, -param, jnp.where(soft, scaled, step))


def _turned(
    arrays: Mapping[str, jax.Array],
    units: Sequence[Unit],
    turn: Callable[[jax.Array], jax.Array],
) -> dict[str, jax.Array]:
    """The arrays, those of units whose filters are on the first axis turned."""
    paths = {
        path
        for unit in units
        if unit.filters_first
        for path in (*unit.scored, *unit.masked, *unit.settled, *unit.consumers)
    }
    return {path: turn(x) if path in paths else x for path, x in arrays.items()}


def _check_state(units: Sequence[Unit], state: PruningState) -> None:
    for unit in units:
        for masks in (state.masks, state.hard):
            if unit.name not in masks:
                raise ValueError(f"masks of another network: none for {unit.name!r}")
            if masks[unit.name].shape != unit.shape:
                raise ValueError(
                    f"masks of another network: that of {unit.name!r} is "
                    f"{masks[unit.name].shape}, its filters are {unit.shape}"
                )
    if extra := sorted(set(state.masks) - {unit.name for unit in units}):
        raise ValueError(f"masks of another network: there is no {extra[0]!r} in this one")
