"""A few optimization steps as one differentiable function: for methods that learn how to learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Params = Any


def unrolled_sgd(
    params: Params,
    objective: Callable[[Params, Any], jax.Array],
    steps: Any,
    *,
    learning_rate: jax.Array | float,
    momentum: float,
    weight_decay: float,
    axis_name: str | None = None,
) -> Params:
    """The parameters after a few steps of SGD, one on `objective(params, step)` for every step.

    The steps are those of PyTorch's SGD: `v <- momentum * v + gradient + weight_decay * params`,
    `params <- params - learning_rate * v`, with v zero at the start. All of them can be
    differentiated, with respect to whatever the objective depends on: `jax.grad` of a function of
    the result is the exact hyper-gradient. Of every step only its parameters and velocity are kept
    for that; the rest is computed again. The steps are a loop, which is compiled once for any
    number of them.

    Source: L-MCL's meta step, Yang et al., TPAMI 2023, after Jang et al., ICML 2019, arXiv
    1905.05901; checked against `losses/meta_optimizers.py` of the L-MCL repository.

    Args:
      params: a tree of arrays.
      objective: a function of such a tree and of a step; of this device's images.
      steps: a tree of arrays `[number of steps, ...]`. A step is this tree without the first axis:
        what makes its objective differ from those of the others.
      learning_rate, momentum, weight_decay: of SGD.
      axis_name: the mapped device axis, over which gradients are averaged. None means one device.
    """

    def moved(carry: tuple[Params, Params], step: Any) -> tuple[tuple[Params, Params], None]:
        params, velocity = carry
        gradient = jax.grad(objective)(params, step)
        if axis_name is not None:
            gradient = jax.lax.pmean(gradient, axis_name)
        velocity = jax.tree.map(
            lambda v, g, p: momentum * v + g + weight_decay * p, velocity, gradient, params
        )
        params = jax.tree.map(lambda p, v: p - learning_rate * v, params, velocity)
        return (params, velocity), None

    # The loop keeps XLA from merging what is computed again with what was; no barrier is needed.
    again = jax.checkpoint(moved, prevent_cse=False)
    start = (params, jax.tree.map(jnp.zeros_like, params))
    (params, _), _ = jax.lax.scan(again, start, steps)
    return params
