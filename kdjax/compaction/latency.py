"""Measures the inference time of networks on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.models.outputs import outputs_of

# The shortest measurement, so that the resolution of the clock and the call itself do not matter.
_MEASUREMENT_SECONDS = 0.01
_WARM_UP_CALLS = 3


class Program:
    """A network in evaluation, compiled for one batch of random images.

    Args:
      network: any module of kdjax that takes images.
      variables: its variables.
      image_shape: `(H, W, C)`.
      batch_size: images per call.
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
        forward = jax.jit(lambda variables, images: outputs_of(network, variables, images).logits)
        self.compiled = forward.lower(*self.arguments).compile()

    @property
    def flops(self) -> float | None:
        """Floating-point operations per call as XLA counts them, or None where it does not."""
        return (self.compiled.cost_analysis() or {}).get("flops")

    def __call__(self, times: int = 1) -> float:
        """Seconds that `times` consecutive calls take."""
        start = time.perf_counter()
        for _ in range(times):
            jax.block_until_ready(self.compiled(*self.arguments))
        return time.perf_counter() - start


def alternate(
    programs: Sequence[Callable[[int], float]], *, rounds: int, budget: float = math.inf
) -> np.ndarray:
    """Measures programs alternately (A B A B ...).

    Disturbances of the machine affect all programs of a round alike: compare the times of one
    round, and take the median of the ratios over rounds.

    Args:
      programs: functions of a number of calls that return the seconds which these took.
      rounds: number of measurements of each program.
      budget: seconds for all rounds; slow programs are measured in fewer rounds, at least three.

    Returns:
      Seconds per call, `[rounds, programs]`.
    """
    call_seconds = [min(program(1) for _ in range(_WARM_UP_CALLS)) for program in programs]
    calls = [max(1, math.ceil(_MEASUREMENT_SECONDS / seconds)) for seconds in call_seconds]
    round_seconds = sum(s * count for s, count in zip(call_seconds, calls, strict=True))
    rounds = max(3, int(min(rounds, budget / round_seconds)))
    return np.array(
        [
            [program(count) / count for program, count in zip(programs, calls, strict=True)]
            for _ in range(rounds)
        ]
    )
