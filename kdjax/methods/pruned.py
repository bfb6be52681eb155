"""Pruning of the networks of any method during training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from kdjax import pruning
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.pruning_selection import selection
from kdjax.methods.pruning_settings import Pruning, schedules, transformation
from kdjax.settings import check
from kdjax.tree import leaves

_BEFORE = "before_pruning/"


class Remembered(NamedTuple):
    """The state of `remembering`.

    Attributes:
      pruning: the `kdjax.pruning.PruningState`.
      removed: the values that the latest update pruned, by the arrays' paths.
    """

    pruning: pruning.PruningState
    removed: dict[str, jax.Array]


def pruned(method: base.Method, config: ConfigDict, *, every: int) -> base.Method:
    """Appends the pruning of `config.pruning` to the optimizer chain of a method.

    The networks of `method.parts` are pruned, such as a cohort with its branches. Other modules of
    the method (projection heads, adapters, discriminators) are not. Without a
    `config.pruning.method`, the method is returned unchanged.

    Args:
      method: the method.
      config: `config.pruning`, `config.epochs` and `config.seed`.
      every: the number of steps between prunings, those of an epoch.

    Raises:
      UserError: invalid settings, or settings without effect; `init` raises it for settings that do
        not fit the networks.
    """
    settings = check(Pruning, config.pruning, "config.pruning")
    epochs = config.epochs
    if not settings.method:
        return method
    if not method.parts:
        raise UserError(
            f"config.pruning.method={settings.method!r}: method {config.method!r} does not say "
            "which parameters are its networks' (Method.parts), so they cannot be pruned; set "
            "config.pruning.method to ''"
        )
    with _named():
        select = selection(settings, method.parts)
        plan = schedules(settings, epochs)
        tx = transformation(settings, select, plan, every=every, epochs=epochs, seed=config.seed)
    # Hard-pruned filters were zero during the epoch, before its last pruning as well.
    remembers = settings.evaluate_before and settings.method != "hfp"
    last = remembering(tx, select) if remembers else tx

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        params, model_state = method.init(key, images)
        with _named():
            tx.init(params)
            if settings.before_training:
                params = pruning.initial(tx, params)
        return params, model_state

    def optimizer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
        return optax.chain(method.optimizer(inner), last)

    def epoch_report(params: base.Params, opt_state: Any) -> base.EpochReport:
        epoch = int(pruning.pruning_state(opt_state).count) // every - 1
        values, last_values = (
            {name: float(schedule(t)) for name, schedule in plan._asdict().items()}
            for t in (min(epoch, epochs - 1), epochs - 1)
        )
        final = values["rate"] >= last_values["rate"] and values["decay"] == 0
        values |= _counted(select(params), params, opt_state, settings.unit)
        metrics = {f"pruning/{name}": value for name, value in values.items()}
        return base.EpochReport(metrics, _others(params, opt_state), final)

    return method._replace(init=init, optimizer=optimizer, epoch_report=epoch_report)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Turns `ValueError`s of the block into `UserError`s that name `config.pruning`."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"config.pruning: {error}") from error


def remembering(
    tx: optax.GradientTransformation, select: pruning.Selection
) -> optax.GradientTransformation:
    """A pruning transformation whose state holds the values that the latest update pruned.

    `params + removed` are the parameters before that pruning, as the epoch trained them.

    Args:
      tx: the pruning transformation.
      select: the groups of filters that it prunes.
    """

    def paths(params: base.Params) -> list[str]:
        groups = select(params)
        return list(dict.fromkeys(p for group in groups for p in (*group.leaves, *group.consumers)))

    def init(params: base.Params) -> Remembered:
        arrays = leaves(params)
        return Remembered(
            tx.init(params), {path: jnp.zeros_like(arrays[path]) for path in paths(params)}
        )

    def update(
        updates: base.Params, state: Remembered, params: base.Params = None
    ) -> tuple[base.Params, Remembered]:
        new, inner = tx.update(updates, state.pruning, params)
        proposed, pruned_updates, hard = leaves(updates), leaves(new), state.pruning.hard
        removed = {path: proposed[path] - pruned_updates[path] for path in paths(params)}
        # Filters that were hard-pruned before have been zero since.
        for group in select(params):
            for path in group.leaves:
                hard_mask = hard.get(path, hard.get(group.name, False))
                removed[path] = jnp.where(hard_mask, 0, removed[path])
            for path in group.consumers if group.name in hard else ():
                removed[path] = jnp.where(hard[group.name][:, None], 0, removed[path])
        return new, Remembered(inner, removed)

    return optax.GradientTransformation(init, update)


def _counted(
    groups: Sequence[pruning.FilterGroup], params: base.Params, opt_state: Any, unit: str
) -> dict[str, float]:
    """Counts of all, pruned, hard-pruned and removed filters (or weights), and mean norms."""
    state = pruning.pruning_state(opt_state)
    removed = sum(group.removed for group in groups)
    counts: dict[str, float] = {
        unit: sum(mask.size for mask in state.masks.values()),
        f"{unit}_pruned": sum(int((~mask).sum()) for mask in state.masks.values()),
        f"{unit}_hard": sum(int(mask.sum()) for mask in state.hard.values()),
        f"{unit}_removed": 0,
    }
    # Removed filters count as pruned, hard-pruned ones.
    counts = {name: count + removed for name, count in counts.items()}
    return counts | _norms(groups, state.masks, leaves(params))


def _others(params: base.Params, opt_state: Any) -> dict[str, base.Params]:
    """The parameters before the epoch's last pruning, if the state holds the pruned values."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Remembered))
    remembered = [node for node in nodes if isinstance(node, Remembered)]
    if not remembered:
        return {}
    arrays = leaves(params)
    arrays |= {path: arrays[path] + part for path, part in remembered[0].removed.items()}
    return {_BEFORE: jax.tree.unflatten(jax.tree.structure(params), arrays.values())}


def _norms(
    groups: Sequence[pruning.FilterGroup],
    masks: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Mean norms of kept and of pruned filters (or magnitudes of weights)."""
    norms_by_kept: dict[bool, list[np.ndarray]] = {True: [], False: []}
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
                norms_by_kept[kept].append(norms[mask == kept])
        norms_by_kept[False].append(np.zeros(group.removed))
    means = {kept: np.concatenate(values) for kept, values in norms_by_kept.items()}
    return {
        name: float(means[kept].mean()) if means[kept].size else 0.0
        for name, kept in (("norm_kept", True), ("norm_pruned", False))
    }
