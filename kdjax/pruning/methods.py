"""The seven methods by their names: three schedules and a criterion.

    method   rate P_t       decay alpha_t   hard fraction lambda_t   criterion
    HFP      P              0               1                        l2
    SFP      P              0               0                        l2
    ASFP     asymptotic     0               0                        l2
    SRFP     P              exponential     0                        l2
    ASRFP    asymptotic     exponential     0                        l2
    GHFP     as its base    as its base     cubic, 0 to 1            l2
    FPGM     P              0               0                        geometric median

SFP: IJCAI 2018. ASFP: IEEE T-Cybernetics 2019. SRFP, ASRFP: 2010.09498. HFP, GHFP: 2011.03170.
FPGM: CVPR 2019. The table is inferred from the code of PGMPF, whose first author wrote SRFP and
GHFP.

Every function takes `select`, the final rate P in [0, 1), `epochs` E and `every` (updates per
epoch), hands further keywords (`criterion`, `counting`, `scope`) to `filter_pruning`, and returns
its transformation: the last element of an optax chain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from kdjax.pruning import criteria, schedules
from kdjax.pruning.groups import Selection
from kdjax.pruning.schedules import Schedule
from kdjax.pruning.transformation import filter_pruning

METHODS = ("sfp", "asfp", "srfp", "asrfp", "hfp", "ghfp", "fpgm")
BASES = ("sfp", "asfp", "srfp", "asrfp")


class Schedules(NamedTuple):
    """The schedules of a method: `filter_pruning(select, **schedules._asdict(), ...)`."""

    rate: Schedule
    decay: Schedule
    hard_fraction: Schedule


def method_schedules(
    method: str,
    rate: float,
    *,
    epochs: int,
    base: str | None = None,
    rising: Schedule | None = None,
    decay: Schedule | None = None,
    hard_fraction: Schedule | None = None,
) -> Schedules:
    """The schedules of a method, which are also those of its weight (unstructured) form.

    Args:
      method: one of `METHODS`.
      rate: final rate P.
      epochs: E.
      base: the soft method that ghfp starts from, one of `BASES`; by default 'sfp'.
      rising: P_t of asfp and asrfp; by default `asymptotic(rate, epochs)`.
      decay: alpha_t of srfp and asrfp; by default `exponential_decay(epochs)`.
      hard_fraction: lambda_t of ghfp; by default `cubic(1, epochs)`.

    Raises:
      ValueError: an unknown name, or a setting that the method does not have.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; use one of {', '.join(METHODS)}")
    gradual = method == "ghfp"
    soft = base or "sfp" if gradual else method
    if gradual and soft not in BASES:
        raise ValueError(f"base={base!r} is unknown; use one of {', '.join(BASES)}")
    asymptotic, softer = soft in ("asfp", "asrfp"), soft in ("srfp", "asrfp")
    for name, value, used in (
        ("base", base, gradual),
        ("rising", rising, asymptotic),
        ("decay", decay, softer),
        ("hard_fraction", hard_fraction, gradual),
    ):
        if value is not None and not used:
            raise ValueError(f"{name} has no effect on {method!r}" + f" of {soft!r}" * gradual)
    chosen = Schedules(
        schedules.constant(rate),
        schedules.constant(0.0),
        schedules.constant(float(method == "hfp")),
    )
    if asymptotic:
        chosen = chosen._replace(rate=rising or schedules.asymptotic(rate, epochs))
    if softer:
        chosen = chosen._replace(decay=decay or schedules.exponential_decay(epochs))
    if gradual:
        chosen = chosen._replace(hard_fraction=hard_fraction or schedules.cubic(1.0, epochs))
    return chosen


def sfp(
    select: Selection, rate: float, *, epochs: int, every: int, **options: Any
) -> optax.GradientTransformation:
    """Soft filter pruning: zeroed after every epoch, and free to return in the next."""
    return _create("sfp", select, rate, epochs, every, options)


def asfp(
    select: Selection,
    rate: float,
    *,
    epochs: int,
    every: int,
    rising: Schedule | None = None,
    **options: Any,
) -> optax.GradientTransformation:
    """Asymptotic SFP: the rate rises to P along `rising`."""
    return _create("asfp", select, rate, epochs, every, options, rising=rising)


def srfp(
    select: Selection,
    rate: float,
    *,
    epochs: int,
    every: int,
    decay: Schedule | None = None,
    **options: Any,
) -> optax.GradientTransformation:
    """Softer pruning: multiplied by `decay`, which falls from 1 to 0, instead of zeroed."""
    return _create("srfp", select, rate, epochs, every, options, decay=decay)


def asrfp(
    select: Selection,
    rate: float,
    *,
    epochs: int,
    every: int,
    rising: Schedule | None = None,
    decay: Schedule | None = None,
    **options: Any,
) -> optax.GradientTransformation:
    """Asymptotic softer pruning: both schedules."""
    return _create("asrfp", select, rate, epochs, every, options, rising=rising, decay=decay)


def hfp(
    select: Selection, rate: float, *, epochs: int, every: int, **options: Any
) -> optax.GradientTransformation:
    """Hard filter pruning: chosen before training (see `initial`), zero ever after."""
    return _create("hfp", select, rate, epochs, every, options)


def ghfp(
    select: Selection,
    rate: float,
    *,
    epochs: int,
    every: int,
    base: str | None = None,
    rising: Schedule | None = None,
    decay: Schedule | None = None,
    hard_fraction: Schedule | None = None,
    **options: Any,
) -> optax.GradientTransformation:
    """Gradually hard filter pruning: from `base` (sfp) to hfp, as `hard_fraction` rises to 1."""
    return _create(
        "ghfp",
        select,
        rate,
        epochs,
        every,
        options,
        base=base,
        rising=rising,
        decay=decay,
        hard_fraction=hard_fraction,
    )


def fpgm(
    select: Selection,
    rate: float,
    *,
    epochs: int,
    every: int,
    norm_rate: float = 0.0,
    distance: str = "l2",
    **options: Any,
) -> optax.GradientTransformation:
    """Filter pruning by the geometric median: Algorithm 1 of the paper, anew after every epoch.

    The official code masks the gradients too, so that its first choice is final: that is `hfp` with
    `criterion=criteria.geometric_median()`.

    Args:
      select, rate, epochs, every, options: as of all methods, without `criterion`.
      norm_rate: fraction of the filters that is chosen by norm instead: 0.1 of a rate of 0.4 in the
        paper's FPGM-mix, 0 in FPGM-only.
      distance: 'l2', 'l1' or 'cosine'.
    """
    options["criterion"] = (
        criteria.mixed(norm_rate, distance) if norm_rate else criteria.geometric_median(distance)
    )
    return _create("fpgm", select, rate, epochs, every, options)


def _create(
    method: str,
    select: Selection,
    rate: float,
    epochs: int,
    every: int,
    options: dict[str, Any],
    **schedule_options: Any,
) -> optax.GradientTransformation:
    chosen = method_schedules(method, rate, epochs=epochs, **schedule_options)
    return filter_pruning(select, **chosen._asdict(), epochs=epochs, every=every, **options)
