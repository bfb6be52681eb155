"""How fast networks run on this machine, beside one another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

_SECONDS_OF_A_TURN = 0.01  # at least, so that the clock and the call count for nothing
_WARM_UP = 3  # calls


class Program:
    """A network in evaluation, compiled for one batch of random images.

    Args:
      network: any module of kdjax that takes images.
      variables: its variables.
      image_shape: `(H, W, C)`.
      batch_size: images of a call.
    """

    def __init__(
        self,
        network: nn.Module,
        variables: Mapping[str, Any],
        image_shape: Sequence[int],
        batch_size: int,
    ):
        images = np.random.default_rng(0).normal(size=(batch_size, *image_shape))
        self.arguments = jax.device_put((dict(variables), images.astype(np.float32)))
        forward = jax.jit(lambda variables, images: network.apply(variables, images).logits)
        self.compiled = forward.lower(*self.arguments).compile()

    @property
    def flops(self) -> float | None:
        """Floating-point operations of a call, as XLA counts them; None if it does not."""
        return (self.compiled.cost_analysis() or {}).get("flops")

    def __call__(self, times: int = 1) -> float:
        """Seconds that so many calls take, one after the other."""
        start = time.perf_counter()
        for _ in range(times):
            jax.block_until_ready(self.compiled(*self.arguments))
        return time.perf_counter() - start


def alternate(
    programs: Sequence[Callable[[int], float]], *, rounds: int, budget: float = math.inf
) -> np.ndarray:
    """Seconds per call of programs that take turns (A B A B ...), `[rounds, programs]`.

    A slow spell of the machine hits all of them: compare the times of one round, and take the
    median of the ratios.

    Args:
      programs: number of calls -> the seconds that they take.
      rounds: how many turns each has.
      budget: seconds; programs that take long have fewer rounds, three at least.
    """
    once = [min(program(1) for _ in range(_WARM_UP)) for program in programs]
    calls = [max(1, math.ceil(_SECONDS_OF_A_TURN / seconds)) for seconds in once]
    a_round = sum(seconds * count for seconds, count in zip(once, calls, strict=True))
    rounds = max(3, int(min(rounds, budget / a_round)))
    return np.array(
        [
            [program(count) / count for program, count in zip(programs, calls, strict=True)]
            for _ in range(rounds)
        ]
    )
