"""SIGTERM, SIGINT and SIGHUP while a run is trained: save, say so, and stop."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

from kdjax.runs import signals
from kdjax.runs.console import say


class Preempted(signals.Stopped):
    """A signal has ended the training; the state was saved, and the user told."""

    told = True


class Preemption:
    """Watches for signals that end a command while the block runs.

    The first one is remembered, a second one ends the process at once. With several processes jax
    watches for SIGTERM, and all of them learn of it at the same step; the other signals are passed
    on as SIGTERM.
    """

    def __init__(self):
        self._number: int | None = None
        self._alone = jax.process_count() == 1
        self._handled = contextlib.ExitStack()

    def __enter__(self):
        self._handled.enter_context(
            signals.handled(self._remember) if self._alone else _passing_on()
        )
        return self

    def __exit__(self, *exception):
        self._handled.close()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            signals.end_at_once(number, frame)
        self._number = number

    def requested(self, step: int) -> bool:
        """Whether to stop after this step."""
        if self._alone:
            return self._number is not None
        return multihost_utils.reached_preemption_sync_point(step)

    def stop(self, step: int) -> None:
        """Raises `Preempted`; the state of `step` has been saved."""
        number = signal.SIGTERM if self._number is None else self._number
        stopped = f"stopped by {signals.name(number)}"
        say(f"{stopped}: saved step {step}; the same command resumes from there")
        raise Preempted(number)


@contextlib.contextmanager
def _passing_on():
    """Sends this process SIGTERM in place of the other signals."""
    numbers = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {
        number: signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
