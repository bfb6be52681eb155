"""How long this process has been compiling, as jax reports it."""

from __future__ import annotations

import functools
import threading
import time

import jax

_EVENTS = "/jax/core/compile/"  # tracing, lowering and XLA's compilation


class Periods:
    """The total length of periods that may contain each other."""

    def __init__(self) -> None:
        self.total = 0.0
        self._periods: list[tuple[float, float]] = []  # disjoint, in the order of time

    def add(self, end: float, length: float) -> None:
        """Adds a period that has just ended; ends never decrease."""
        start = end - length
        while self._periods and self._periods[-1][0] >= start:
            before, after = self._periods.pop()
            self.total -= after - before
        if self._periods:
            start = max(start, self._periods[-1][1])
        self._periods.append((start, end))
        self.total += end - start


@functools.cache
def _listening() -> Periods:
    periods, lock = Periods(), threading.Lock()  # threads compile, too

    def listen(event: str, duration_secs: float, **details: str | int) -> None:
        del details
        if event.startswith(_EVENTS):
            with lock:
                periods.add(time.monotonic(), duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return periods


def seconds() -> float:
    """The seconds that went into compiling since the first call; differences are what counts."""
    return _listening().total
