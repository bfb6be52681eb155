"""Schedules of pruning: plain functions of the epoch t = 0 ... E - 1 that has just been trained.

Three quantities follow a schedule: the rate P_t (fraction of the filters that is pruned), the decay
alpha_t (what the pruned ones are multiplied by) and the hard fraction lambda_t (fraction of the
pruned ones that never returns). Arguments `..._from` are fractions of training, of which the last
epoch is a part unless they are 1. Of a number t the value is computed in float64 by numpy, of a
`jax.Array` by jax. "Author code" below is the public code of the first author of SRFP and GHFP
(PGMPF), which was not released as these papers' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Schedule = Callable[[Any], Any]

FORMS = ("three_points", "closed")


def constant(value: float) -> Schedule:
    """The same value in every epoch."""

    def at(t: Any) -> Any:
        xp = _module(t)
        return xp.full(xp.shape(t), value)[()]

    return at


def asymptotic(
    rate: float,
    epochs: int,
    *,
    form: str = "three_points",
    knee: float = 1 / 8,
    exact_from: float = 0.95,
) -> Schedule:
    """ASFP's rate: steep at first, a e^(-k t) + b through (0, 0), (knee E, 3/4 P) and (E, P).

    ASFP, IEEE T-Cybernetics 2019, equations 6 and 7 (read in third-party code and in issue 28 of
    soft-filter-pruning).

    Args:
      rate: final rate P.
      epochs: E.
      form: 'three_points' passes exactly through them; 'closed' is P (1 - e^(-k t)) with
        k = ln 4 / (knee E) of the author code, which ends 2e-5 P below P.
      knee: fraction of training at which 3/4 P are reached, D of the paper.
      exact_from: fraction of training from which on it is P itself: 0.95 (CIFAR) or 0.9 (ImageNet)
        in the author code; 1 for the curve alone, which floor() leaves a filter short of P.

    Raises:
      ValueError: an unknown form, or a `knee` or `exact_from` out of range.
    """
    _fraction("exact_from", exact_from)
    if form == "closed":
        exponent, scale = math.log(4) / knee, 1.0
    elif form == "three_points":
        if not 0 < knee < 0.75:
            raise ValueError(f"knee={knee} is not in (0, 3/4): no such curve bends so late")
        exponent = _three_points(knee)
        scale = 1 / -math.expm1(-exponent)
    else:
        raise ValueError(f"form={form!r} is unknown; use one of {', '.join(FORMS)}")
    end = _first_epoch(exact_from, epochs)

    def at(t: Any) -> Any:
        xp = _module(t)
        return xp.where(t >= end, rate, -rate * scale * xp.expm1(-exponent * t / epochs))[()]

    return at


def cubic(final: float, epochs: int, *, exact_from: float = 1.0) -> Schedule:
    """A rise from 0 to `final`: final (1 - (1 - (t + 1) / E)^3) (Zhu & Gupta 2017).

    GHFP's hard fraction (final = 1), and the second form of the rate, both of the author code.

    Args:
      final: value in the last epoch.
      epochs: E.
      exact_from: fraction of training from which on it is `final`: the author code has 1 for CIFAR,
        0.9 for ImageNet and 0.8 for ImageNet from a trained network.
    """
    _fraction("exact_from", exact_from)
    end = _first_epoch(exact_from, epochs)

    def at(t: Any) -> Any:
        remaining = 1 - (t + 1) / epochs
        return _module(t).where(t >= end, final, final * (1 - remaining**3))[()]

    return at


def cosine(final: float, epochs: int, *, exact_from: float = 0.9) -> Schedule:
    """A rise from 0 to `final` along half a cosine: final (1 - cos(pi t / (exact_from E))) / 2.

    The other form of GHFP's hard fraction in the author code.
    """
    falling = cosine_decay(epochs, zero_from=exact_from)
    return lambda t: final * (1 - falling(t))


def exponential_decay(
    epochs: int, *, start: float = 1.0, end: float = 1e-5, zero_from: float = 0.9
) -> Schedule:
    """SRFP's decay alpha_t = start e^(-k t), which reaches (nearly) `end` after E epochs.

    k = -ln(end / (start + 0.01 end)) / E, and 0 from `zero_from` E on (author code).

    Args:
      epochs: E.
      start: alpha_0, in [0, 1]; 0 is SFP.
      end: sigma, positive: 1e-5 for CIFAR; 1e-7 (from scratch) and 1e-9 (from a trained network)
        in the names of ImageNet logs.
      zero_from: fraction of training from which on pruned filters are zeroed: 0.9 (CIFAR) or 0.8
        (ImageNet).

    Raises:
      ValueError: `start`, `end` or `zero_from` is out of range.
    """
    _fraction("start", start)
    _fraction("zero_from", zero_from)
    if not 0 < end <= 1:
        raise ValueError(f"end={end} is not in (0, 1]")
    slope = -math.log(end / (start + 0.01 * end)) / epochs
    last = _first_epoch(zero_from, epochs)

    def at(t: Any) -> Any:
        xp = _module(t)
        return xp.where(t >= last, 0.0, start * xp.exp(-slope * t))[()]

    return at


def linear_decay(epochs: int, *, zero_from: float = 0.9) -> Schedule:
    """1 - t / (E - 1), and 0 from `zero_from` E on (an alternative of the author code)."""
    _fraction("zero_from", zero_from)
    last = _first_epoch(zero_from, epochs)

    def at(t: Any) -> Any:
        return _module(t).where(t >= last, 0.0, 1 - t / max(epochs - 1, 1))[()]

    return at


def cosine_decay(epochs: int, *, zero_from: float = 0.9) -> Schedule:
    """Half a cosine from 1 to 0, which it reaches at `zero_from` E (author code)."""
    _fraction("zero_from", zero_from)
    if zero_from == 0:
        return constant(0.0)
    last = _first_epoch(zero_from, epochs)

    def at(t: Any) -> Any:
        xp = _module(t)
        falling = (1 + xp.cos(math.pi * t / (zero_from * epochs))) / 2
        return xp.where(t >= last, 0.0, falling)[()]

    return at


def _module(t: Any) -> Any:
    return jnp if isinstance(t, jax.Array) else np


def _first_epoch(fraction: float, epochs: int) -> int:
    """The first t >= fraction * epochs, of which the last epoch is one unless `fraction` is 1.

    0.07 of 100 is 7, though 7.000000000000001 in binary; 0.95 of 10 is 9, so that short trainings
    end pruned too.
    """
    if fraction == 1:
        return epochs
    return min(math.ceil(fraction * epochs - 1e-9), epochs - 1)


def _fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is not in [0, 1]")


def _three_points(knee: float) -> float:
    """k E of 1 - e^(-k knee E) = 3/4 (1 - e^(-k E)), by bisection."""
    low, high = 1e-9, 4 * math.log(4) / knee
    for _ in range(200):
        middle = (low + high) / 2
        above = math.expm1(-middle * knee) < 0.75 * math.expm1(-middle)
        low, high = (low, middle) if above else (middle, high)
    return (low + high) / 2
