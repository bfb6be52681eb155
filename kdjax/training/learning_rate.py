"""Learning-rate schedules: plain functions of the step.

As in the papers' code, the rate changes once an epoch (`epoch = step // steps_per_epoch`); only
the warm-up and `poly` change it every step.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Step = jax.Array | int
Schedule = Callable[[Step], jax.Array]


def cosine(base: float, *, epochs: int, steps_per_epoch: int) -> Schedule:
    """`base / 2 (1 + cos(pi epoch / epochs))`."""

    def rate(step: Step) -> jax.Array:
        epoch = jnp.asarray(step) // steps_per_epoch
        return base / 2 * (1 + jnp.cos(jnp.pi * epoch / epochs))

    return rate


def sgdr(base: float, *, period: int, steps_per_epoch: int) -> Schedule:
    """Cosine with warm restarts (SGDR), the period of `period` epochs doubling at every restart."""

    def rate(step: Step) -> jax.Array:
        epoch = jnp.asarray(step) // steps_per_epoch
        # The cycle is floor(log2(epoch / period + 1)), by counting bits: log2 may round downwards.
        cycle = 31 - jax.lax.clz((epoch // period + 1).astype(jnp.int32))
        length = period * 2**cycle
        start = length - period
        return base / 2 * (1 + jnp.cos(jnp.pi * (epoch - start) / length))

    return rate


def multistep(
    base: float, *, milestones: Sequence[int], factors: Sequence[float], steps_per_epoch: int
) -> Schedule:
    """`base`, multiplied by `factors[i]` from epoch `milestones[i]` on.

    Raises:
      ValueError: if milestones and factors differ in number, or milestones do not increase.
    """
    if len(milestones) != len(factors):
        raise ValueError(f"{len(milestones)} milestones but {len(factors)} factors")
    if list(milestones) != sorted(set(milestones)):
        raise ValueError(f"milestones must increase, got {tuple(milestones)}")

    def rate(step: Step) -> jax.Array:
        epoch = jnp.asarray(step) // steps_per_epoch
        value = jnp.asarray(base)
        for milestone, factor in zip(milestones, factors, strict=True):
            value = jnp.where(epoch >= milestone, value * factor, value)
        return value

    return rate


def poly(base: float, *, steps: int, power: float) -> Schedule:
    """`base (1 - step / steps) ^ power`: of networks for segmentation.

    Source: Chen et al. 2017 (DeepLab, arXiv 1606.00915), section 4.1.2.
    """

    def rate(step: Step) -> jax.Array:
        return base * jnp.maximum(1 - jnp.asarray(step) / steps, 0) ** power

    return rate


def warm_up(schedule: Schedule, base: float, *, epochs: int, steps_per_epoch: int) -> Schedule:
    """A linear rise to `base` over the first epochs, `base (step + 1) / warm-up steps`.

    Afterwards `schedule` runs with its own clock, started at the end of the warm-up.
    """
    steps = epochs * steps_per_epoch

    def rate(step: Step) -> jax.Array:
        step = jnp.asarray(step)
        rising = base * (step + 1) / max(steps, 1)
        return jnp.where(step < steps, rising, schedule(jnp.maximum(step - steps, 0)))

    return rate
