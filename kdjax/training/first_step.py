"""The compiled training step, loaded while the initial state is made."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.training.program import Program


def loading(program: Program, constants: Any) -> Future[Any] | None:
    """Traces the training step at once, and compiles or loads it in a thread.

    jax keeps what is compiled in memory, for calls with arguments of the same shapes, types and
    devices. The thread needs Python's lock for a small part of the time only.

    Args:
      program: the program of a run without checkpoints.
      constants: `Feed.train_constants` of its feed.

    Returns:
      A future that is done when the step of the first dispatch can be called without delay, and
      raises what compilation raises. None where the step is compiled by its first call: in several
      processes, which compile in one order, and for a streamed set, whose batches take long to
      read.
    """
    if jax.process_count() > 1 or not program.feed.resident:
        return None
    replicated = NamedSharding(program.parallel.mesh, PartitionSpec())
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
        program.abstract_state(),
    )
    _, batches = next(program.feed.train(0, 0))
    lowered = program.train_steps.lower(state, constants, batches)
    thread = ThreadPoolExecutor(1, "compile")
    compiled = thread.submit(lowered.compile)
    thread.shutdown(wait=False)
    return compiled
