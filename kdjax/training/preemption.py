"""SIGTERM: save, say so, and stop."""

import signal

import jax
from jax.experimental import multihost_utils

from kdjax.runs.console import say

EXIT_STATUS = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """Ends the process as a shell reports one that SIGTERM ended."""

    def __init__(self):
        super().__init__(EXIT_STATUS)


class Preemption:
    """Watches for SIGTERM while the block runs.

    With several processes jax watches, and all of them learn of it at the same step.
    """

    def __init__(self):
        self._seen = False
        self._previous = None
        self._alone = jax.process_count() == 1

    def __enter__(self):
        if self._alone:
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *exception):
        if self._alone:
            signal.signal(signal.SIGTERM, self._previous)

    def _handle(self, number, frame):
        del number, frame
        self._seen = True

    def requested(self, step: int) -> bool:
        """Whether to stop after this step."""
        if self._alone:
            return self._seen
        return multihost_utils.reached_preemption_sync_point(step)

    def stop(self, step: int) -> None:
        """Raises `Preempted`; the state of `step` has been saved."""
        say(f"stopped by SIGTERM: saved step {step}; the same command resumes from there")
        raise Preempted
