"""Times of compiled functions that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax

Name = TypeVar("Name", bound=Hashable)
Call = tuple[Callable[..., Any], Sequence[Any]]


def milliseconds(calls: Mapping[Name, Call], rounds: int) -> dict[Name, float]:
    """Median time of each function with its arguments, after one call that compiles."""
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, (function, arguments) in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}
