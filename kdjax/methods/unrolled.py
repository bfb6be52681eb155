"""A few optimization steps as one differentiable function: for methods that learn how to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Params = Any
# (parameters, velocity) -> the same after a step.
SgdStep = Callable[[Params, Params], tuple[Params, Params]]


def unrolled_sgd(
    params: Params,
    objectives: Sequence[Callable[[Params], jax.Array]],
    *,
    learning_rate: jax.Array | float,
    momentum: float,
    weight_decay: float,
    axis_name: str | None = None,
) -> Params:
    """The parameters after one step of SGD on every objective, in their order.

    The steps are those of PyTorch's SGD: `v <- momentum * v + gradient + weight_decay * params`,
    `params <- params - learning_rate * v`, with v zero at the start. All of them can be
    differentiated, with respect to whatever the objectives depend on: `jax.grad` of a function of
    the result is the exact hyper-gradient. Of every step only its parameters and velocity are kept
    for that; the rest is computed again.

    Source: L-MCL's meta step, Yang et al., TPAMI 2023, after Jang et al., ICML 2019, arXiv
    1905.05901; checked against `losses/meta_optimizers.py` of the L-MCL repository.

    Args:
      params: a tree of arrays.
      objectives: functions of such a tree, one per step; of this device's images.
      learning_rate, momentum, weight_decay: of SGD.
      axis_name: the mapped device axis, over which gradients are averaged. None means one device.
    """

    def step(objective: Callable[[Params], jax.Array]) -> SgdStep:
        @jax.checkpoint
        def moved(params: Params, velocity: Params) -> tuple[Params, Params]:
            gradient = jax.grad(objective)(params)
            if axis_name is not None:
                gradient = jax.lax.pmean(gradient, axis_name)
            velocity = jax.tree.map(
                lambda v, g, p: momentum * v + g + weight_decay * p, velocity, gradient, params
            )
            return jax.tree.map(lambda p, v: p - learning_rate * v, params, velocity), velocity

        return moved

    velocity = jax.tree.map(jnp.zeros_like, params)
    for objective in objectives:
        params, velocity = step(objective)(params, velocity)
    return params
