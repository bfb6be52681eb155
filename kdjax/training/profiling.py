"""A trace of some training steps, for TensorBoard or Perfetto."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from kdjax.runs.console import say
from kdjax.training.hooks import Hook
from kdjax.training.step import TrainState


class _Trace:
    """Traces the steps that follow the first dispatch, which compiles."""

    def __init__(self, directory: Path, steps: int):
        self.directory, self.steps = directory, steps
        self.traced, self.calls, self.active = 0, 0, False

    def around(self, train_steps: Callable[..., Any]) -> Callable[..., Any]:
        def traced_steps(state: TrainState, constants: Any, batches: Any) -> tuple[TrainState, Any]:
            self.calls += 1
            if self.calls == 2:
                jax.profiler.start_trace(str(self.directory))
                self.active = True
            result = train_steps(state, constants, batches)
            if self.active:
                self.traced += jax.tree.leaves(result[1])[0].shape[0]
                if self.traced >= self.steps:
                    jax.block_until_ready(result)
                    self.close()
            return result

        return traced_steps

    def close(self) -> None:
        if not self.active:
            return
        self.active = False
        jax.profiler.stop_trace()
        say(f"trace of {self.traced} step(s): {self.directory}")


@contextlib.contextmanager
def profiled(directory: Path, steps: int) -> Iterator[tuple[Hook, ...]]:
    """The hooks that trace `steps` training steps while the block runs; none for 0 steps.

    Whole dispatches are traced, beginning with the second one; a run that ends before `steps` steps
    are traced leaves those that were.

    Args:
      directory: where `jax.profiler` writes.
      steps: the number of steps, rounded up to whole dispatches.
    """
    if not steps:
        yield ()
        return
    trace = _Trace(directory, steps)
    try:
        yield (Hook(around=trace.around),)
    finally:
        trace.close()
