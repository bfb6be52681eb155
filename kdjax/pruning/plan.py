"""The settings of a pruning, tabulated: what every epoch prunes is settled before training.

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
    """What is done when. The arrays have one float64 value per epoch, or one for all epochs.

    Attributes:
      rate: fraction of the filters that is pruned, `[E]`.
      decay: what the pruned ones are multiplied by, `[E]`.
      hard_fraction: fraction of the pruned ones that never returns, `[E]`.
      every: updates between two prunings.
      counting: how fractions become numbers.
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
        """Length of the tables; later epochs are like the last one."""
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
    for name, value, known in (
        ("counting", counting, counts.COUNTINGS),
        ("scope", scope, SCOPES),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(known)}")
    for name, value in (("every", every), ("epochs", epochs)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be positive")
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
    """How many of `size` filters every epoch prunes, and how many of these are hard: int32 `[E]`.

    A filter that is hard stays so: neither number ever falls below the largest hard one before.

    Args:
      plan: the settings.
      name: of the group, for messages.
      size: number of filters there are.
      removed: number of filters that an earlier compaction took away.
      keep: the least number of filters that must be left.

    Raises:
      ValueError: fewer than `keep` are left.
    """
    whole = size + removed
    pruned = counts.number(whole, plan.rate, counting=plan.counting)
    hard = counts.number(whole, plan.rate, plan.hard_fraction, counting=plan.counting)
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
