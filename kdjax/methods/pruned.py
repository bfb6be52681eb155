"""Any method, with its networks pruned while they learn."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from kdjax import pruning
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.pruning_settings import schedules, selection, transformation
from kdjax.models import StagedNetwork
from kdjax.pruning.paths import leaves

_BEFORE = "before_pruning/"


class Remembered(NamedTuple):
    """The state of `remembering`.

    Attributes:
      pruning: the `kdjax.pruning.PruningState`.
      removed: what the latest update took away by pruning, by the arrays' paths.
    """

    pruning: pruning.PruningState
    removed: dict[str, jax.Array]


def pruned(
    method: base.Method, networks: Sequence[StagedNetwork], config: ConfigDict, *, every: int
) -> base.Method:
    """`method` with the pruning that `config.pruning` describes, the last in its optimizer's chain.

    Every network of the cohort is pruned, with its branches; what a method has besides (projection
    heads, adapters, discriminators) is not.

    Args:
      method: any.
      networks: of the cohort, plain.
      config: `config.pruning` and `config.epochs`.
      every: steps per epoch.

    Raises:
      UserError: settings that make no pruning; and by `init`, those that do not fit the networks.
    """
    settings = config.pruning
    select = selection(settings, networks)
    try:
        plan = schedules(settings, config.epochs)
        tx = transformation(settings, select, plan, every=every, epochs=config.epochs)
    except ValueError as error:
        raise UserError(f"config.pruning: {error}") from error
    last = remembering(tx, select) if settings.evaluate_before else tx

    def init(key, images):
        params, model_state = method.init(key, images)
        try:
            tx.init(params)
            if settings.before_training:
                params = pruning.initial(tx, params)
        except ValueError as error:
            raise UserError(f"config.pruning: {error}") from error
        return params, model_state

    def optimizer(own):
        return optax.chain(method.optimizer(own), last)

    inspect = functools.partial(_inspect, plan, select, every)
    return method._replace(init=init, optimizer=optimizer, inspect=inspect)


def remembering(
    tx: optax.GradientTransformation, select: pruning.Selection
) -> optax.GradientTransformation:
    """A pruning transformation whose state says what its latest update took away.

    `params + removed` are the parameters before that pruning: the network that this epoch trained.
    """

    def paths(params) -> dict[str, str]:
        return {path: group.name for group in select(params) for path in group.leaves}

    def init(params):
        found = leaves(params)
        removed = {path: jnp.zeros_like(found[path]) for path in paths(params)}
        return Remembered(tx.init(params), removed)

    def update(updates, state, params=None):
        new, inner = tx.update(updates, state.pruning, params)
        proposed, made, hard = leaves(updates), leaves(new), state.pruning.hard

        def difference(path, group):
            # Filters that were hard already have been zero all the epoch.
            still = hard.get(path, hard.get(group, False))
            return jnp.where(still, 0, proposed[path] - made[path])

        removed = {path: difference(path, group) for path, group in paths(params).items()}
        return new, Remembered(inner, removed)

    return optax.GradientTransformation(init, update)


def _inspect(
    plan: pruning.Schedules,
    select: pruning.Selection,
    every: int,
    params: base.Params,
    opt_state: Any,
) -> base.Inspection:
    """What pruning has done by the end of an epoch."""
    state = pruning.pruning_state(opt_state)
    epoch = int(state.count) // every - 1
    values = {name: float(schedule(epoch)) for name, schedule in plan._asdict().items()}
    arrays = leaves(params)
    groups = select(params)
    removed = sum(group.removed for group in groups)
    total = removed + sum(mask.size for mask in state.masks.values())
    gone = removed + sum(int((~mask).sum()) for mask in state.masks.values())
    hard = removed + sum(int(mask.sum()) for mask in state.hard.values())
    values |= {"filters": total, "filters_pruned": gone, "filters_hard": hard}
    values["filters_removed"] = removed
    values |= _norms(groups, state.masks, arrays)
    others = {}
    found = [node for node in _nodes(opt_state) if isinstance(node, Remembered)]
    if found:
        restored = {path: arrays[path] + part for path, part in found[0].removed.items()}
        structure = jax.tree.structure(params)
        others = {_BEFORE: jax.tree.unflatten(structure, (arrays | restored).values())}
    complete = values["rate"] >= float(plan.rate(10**9)) and values["decay"] == 0
    return base.Inspection(
        {f"pruning/{name}": value for name, value in values.items()}, others, complete
    )


def _nodes(opt_state: Any) -> list:
    return jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Remembered))


def _norms(groups, masks, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean norms of filters (magnitudes of weights) that are kept, and that are pruned."""
    found: dict[bool, list] = {True: [], False: []}
    for group in groups:
        if group.name in masks:
            squares = sum(
                np.square(arrays[path]).reshape(-1, masks[group.name].size).sum(0)
                for path in group.scored
            )
            pairs = [(masks[group.name], np.sqrt(squares))]
        else:
            pairs = [(masks[path], np.abs(arrays[path])) for path in group.scored]
        for mask, norms in pairs:
            for kept in (True, False):
                found[kept].append(norms[mask == kept])
    means = {kept: np.concatenate(values) for kept, values in found.items()}
    return {
        name: float(means[kept].mean()) if means[kept].size else 0.0
        for name, kept in (("norm_kept", True), ("norm_pruned", False))
    }
