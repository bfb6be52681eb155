"""Preemption: on SIGTERM, SIGINT or SIGHUP a run saves its state and stops."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from kdjax.runs import signals
from kdjax.runs.console import say


class Preempted(signals.Stopped):
    """A signal has ended the training; the state was saved and a message printed."""

    told = True


class Preemption:
    """Records signals that end a command, while the block runs.

    The first signal is recorded; a second one ends the process at once. With several processes,
    jax's preemption service handles SIGTERM, so that all processes stop at the same step; the other
    signals are forwarded as SIGTERM.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._single_process = jax.process_count() == 1
        self._handled = contextlib.ExitStack()

    def __enter__(self) -> Preemption:
        self._handled.enter_context(
            signals.handled(self._remember) if self._single_process else _forwarded()
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._handled.close()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            signals.end_at_once(number, frame)
        self._number = number

    def requested(self, step: int) -> bool:
        """Whether training must stop after this step."""
        if self._single_process:
            return self._number is not None
        return multihost_utils.reached_preemption_sync_point(step)

    def stop(self, step: int) -> None:
        """Prints a message and ends the training; the state of `step` has been saved.

        Raises:
          Preempted: always.
        """
        number = signal.SIGTERM if self._number is None else self._number
        stopped = f"stopped by {signals.name(number)}"
        say(f"{stopped}: saved step {step}; the same command resumes from there")
        raise Preempted(number)


@contextlib.contextmanager
def _forwarded() -> Iterator[None]:
    """Forwards the other signals to this process as SIGTERM, while the block runs."""
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
