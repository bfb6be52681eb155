"""The settings of pruning, tabulated by epoch before training.

Schedules are evaluated once, on the host, so that rounding, which differs between jit and no jit
and between kinds of devices, never decides how many filters an epoch prunes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from kdjax.pruning import counting as counts
from kdjax.pruning.schedules import Schedule

SCOPES = ("layer", "global")


class Plan(NamedTuple):
    """The settings by epoch. The arrays have one float64 value per epoch, or one for all epochs.

    Attributes:
      rate: fraction of the filters that is pruned, `[E]`.
      decay: factor by which pruned filters are multiplied, `[E]`.
      hard_fraction: fraction of the pruned filters that are hard-pruned, `[E]`.
      every: the number of updates between two prunings.
      counting: the rounding of fractions to numbers of filters.
      scope: 'layer' or 'global'.
    """

    rate: np.ndarray
    decay: np.ndarray
    hard_fraction: np.ndarray
    every: int
    counting: str
    scope: str

    @property
    def epochs(self) -> int:
        """Length of the tables; later epochs use the last entry."""
        return len(self.rate)


def make(
    *,
    rate: float | Schedule,
    decay: float | Schedule,
    hard_fraction: float | Schedule,
    every: int,
    epochs: int | None,
    counting: str,
    scope: str,
) -> Plan:
    """A `Plan` of the arguments of `filter_pruning`.

    Raises:
      ValueError: a setting out of its range, or a schedule without `epochs`.
    """
    for name, choice, known in (
        ("counting", counting, counts.COUNTINGS),
        ("scope", scope, SCOPES),
    ):
        if choice not in known:
            raise ValueError(f"{name}={choice!r} is unknown; use one of {', '.join(known)}")
    for name, number in (("every", every), ("epochs", epochs)):
        if number is not None and number < 1:
            raise ValueError(f"{name}={number} must be positive")
    tables = {
        name: _tabulate(name, value, epochs)
        for name, value in (("rate", rate), ("decay", decay), ("hard_fraction", hard_fraction))
    }
    if not (tables["rate"].min() >= 0 and tables["rate"].max() < 1):
        raise ValueError(f"rate={_extent(tables['rate'])} is not in [0, 1)")
    for name in ("decay", "hard_fraction"):
        if not (tables[name].min() >= 0 and tables[name].max() <= 1):
            raise ValueError(f"{name}={_extent(tables[name])} is not in [0, 1]")
    return Plan(**tables, every=every, counting=counting, scope=scope)


def numbers(plan: Plan, name: str, size: int, removed: int, keep: int) -> tuple[np.ndarray, ...]:
    """The numbers of pruned and of hard-pruned filters in every epoch, int32 `[E]` each.

    Hard-pruned filters stay pruned: neither number is ever smaller than an earlier number of
    hard-pruned filters.

    Args:
      plan: the tabulated settings.
      name: the name of the group, for error messages.
      size: the number of filters.
      removed: the number of filters that an earlier compaction removed.
      keep: the smallest number of filters that must remain.

    Raises:
      ValueError: fewer than `keep` filters would remain.
    """
    dense_size = size + removed
    pruned = counts.number(dense_size, plan.rate, counting=plan.counting)
    hard = counts.number(dense_size, plan.rate, plan.hard_fraction, counting=plan.counting)
    hard = np.maximum.accumulate(np.maximum(hard - removed, 0))
    pruned = np.maximum(np.maximum(pruned - removed, 0), hard)
    if pruned.max() > size - keep:
        raise ValueError(
            f"rate={_extent(plan.rate)} prunes {pruned.max()} of the {size} filters of {name!r}, "
            f"where {keep} must be left"
        )
    return pruned.astype(np.int32), hard.astype(np.int32)


def _tabulate(name: str, value: float | Schedule, epochs: int | None) -> np.ndarray:
    if not callable(value):
        table = np.full(epochs or 1, value, np.float64)
    elif epochs is None:
        raise ValueError(f"{name} is a schedule: pass the number of epochs, epochs=")
    else:
        with jax.ensure_compile_time_eval():
            table = np.array([float(value(epoch)) for epoch in range(epochs)])
    if not np.isfinite(table).all():
        raise ValueError(f"{name} is not finite in epoch {int(np.argmin(np.isfinite(table)))}")
    return table


def _extent(table: np.ndarray) -> str:
    low, high = table.min(), table.max()
    return f"{high:g}" if low == high else f"{low:g} ... {high:g}"
