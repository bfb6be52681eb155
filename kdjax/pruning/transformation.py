"""Pruning while training, as the last transformation of an optax chain.

One transformation serves SFP, ASFP, SRFP, ASRFP, HFP, GHFP and FPGM: they differ in three schedules
and a criterion (`kdjax.pruning.methods`), as the GHFP paper generalizes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax.numerics import at_least_float32
from kdjax.pruning import criteria, engine
from kdjax.pruning import plan as plans
from kdjax.pruning.choice import Unit
from kdjax.pruning.groups import Selection, selected, sizes
from kdjax.pruning.schedules import Schedule
from kdjax.tree import leaves


def filter_pruning(
    select: Selection,
    *,
    rate: float | Schedule,
    decay: float | Schedule = 0.0,
    hard_fraction: float | Schedule = 0.0,
    criterion: criteria.Criterion = criteria.l2,
    every: int,
    epochs: int | None = None,
    counting: str = "exact",
    scope: str = "layer",
    filter_axis: int | None = None,
) -> optax.GradientTransformation:
    """Prunes filters after every `every`-th update; the last element of any chain.

    After epoch t, that is after update number `(t + 1) * every`, of the C filters of a group

        S_t  the floor(C P_t) of smallest score                   pruned: M = 0, else M = 1
        H_t  the floor(C P_t lambda_t) of smallest score in S_t   pruned for good: A = 0, else A = 1
        W <- W (M + alpha_t (1 - M) A)

    (SRFP, 2010.09498; GHFP, 2011.03170; checked against PGMPF's pruning_resnet_soft_hard.py, by
    their first author.) The update that is emitted lands there, exactly so where filters become
    zero, else up to the rounding of the parameters. In between, filters of H do not move, whatever
    momentum and weight decay propose, and all other updates pass as they are. H only grows, and
    comes first in every choice; then come filters that are zero already, then the smallest scores;
    equal ones by their index.

    The official code prunes before the first epoch too: `params = initial(tx, params)`. Without it
    filters that are hard from the start become zero in the first update.

    Args:
      select: parameters -> groups of filters, by their structure alone; see `kdjax.pruning.groups`.
      rate: P_t in [0, 1), a number or a function of t.
      decay: alpha_t in [0, 1], likewise.
      hard_fraction: lambda_t in [0, 1], likewise.
      criterion: scores of the filters of a kernel; see `kdjax.pruning.criteria`.
      every: updates per epoch.
      epochs: number of epochs, for schedules. Afterwards their last values hold, and what groups
        call `settled` is zeroed after the last one; without it, after every one.
      counting: 'exact' or 'float'; see `kdjax.pruning.counting`.
      scope: 'layer': the rate holds in every group. 'global': it holds for all groups together, by
        scores divided by their group's mean, and at least one filter of every group is left.
      filter_axis: the axis that the filters of all groups are on: -1 (flax, Haiku: [h, w, in, C])
        or 0 (PyTorch, Equinox: [C, in, h, w]). None is that of the groups: -1, unless a kernel's
        name or shape contradicts, which is an error.

    Returns:
      A transformation with a `PruningState`. Its update needs `params`.

    Raises:
      ValueError: a setting out of range; and, once it sees parameters, a rate that empties a group
        or prunes nothing, and a state of another network.
    """
    plan = plans.make(
        rate=rate,
        decay=decay,
        hard_fraction=hard_fraction,
        every=every,
        epochs=epochs,
        counting=counting,
        scope=scope,
    )

    def units(params: Any) -> list[Unit]:
        groups = selected(select, params, filter_axis)
        numbers = sizes(params, groups)
        return [
            Unit(
                name=group.name,
                shape=(numbers[group.name],),
                removed=group.removed,
                scored=group.scored,
                masked=group.pruned,
                score=_filter_scores(criterion, group.name),
                settled=group.settled,
                consumers=group.consumers,
                filters_first=group.filter_axis == 0,
            )
            for group in groups
        ]

    return engine.transformation(plan, units)


def weight_pruning(
    select: Selection,
    *,
    rate: float | Schedule,
    decay: float | Schedule = 0.0,
    hard_fraction: float | Schedule = 0.0,
    every: int,
    epochs: int | None = None,
    counting: str = "exact",
    scope: str = "layer",
) -> optax.GradientTransformation:
    """The same for single weights: in every kernel those of smallest magnitude (unstructured).

    The masks have the kernels' shapes and are named by their paths. Of the groups that `select`
    finds only the scored kernels matter, one by one. That SRFP's form of it is this one is
    inferred: the paper says that it carries over.

    Args: as of `filter_pruning`.

    Raises:
      ValueError: as `filter_pruning`.
    """
    plan = plans.make(
        rate=rate,
        decay=decay,
        hard_fraction=hard_fraction,
        every=every,
        epochs=epochs,
        counting=counting,
        scope=scope,
    )

    def units(params: Any) -> list[Unit]:
        # Single weights are ranked wherever a kernel's filters are.
        groups = [group._replace(filter_axis=group.filter_axis or -1) for group in select(params)]
        sizes(params, groups)
        shapes = {path: tuple(leaf.shape) for path, leaf in leaves(params).items()}
        return [
            Unit(path, shapes[path], 0, (path,), (path,), _magnitudes)
            for group in groups
            for path in group.scored
        ]

    return engine.transformation(plan, units)


def _filter_scores(
    criterion: criteria.Criterion, name: str
) -> Callable[[Sequence[jax.Array]], tuple[jax.Array, jax.Array]]:
    def scores(kernels: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Kernels of one group make one filter each: the squared norms of its parts add up.
        columns = [at_least_float32(x).reshape(-1, x.shape[-1]) for x in kernels]
        together = jnp.concatenate(columns)
        return criterion(together, name), jnp.all(together == 0, axis=0)

    return scores


def _magnitudes(kernels: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (kernel,) = kernels
    magnitude = jnp.abs(at_least_float32(kernel))
    return magnitude, magnitude == 0
