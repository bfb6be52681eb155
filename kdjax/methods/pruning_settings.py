"""`config.pruning`: its settings, and from them the schedules and the transformation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import optax

from kdjax import pruning
from kdjax.pruning import criteria
from kdjax.pruning import schedules as forms
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Pruning:
    """`config.pruning`; see `kdjax.pruning`. Without a method nothing is pruned.

    Numbers of schedules (`sigma`, `rate_from`, `zero_from`, `hard_from`) may be set for all
    methods, as the files of `configs/` do; other settings that have no effect are refused.
    """

    method: str = setting("", "by which filters are pruned", choices=("", *pruning.METHODS))
    rate: float = setting(
        0.4,
        "fraction of the filters pruned in the end; those that a compact network lacks count",
        above=0,
        below=1,
    )
    unit: str = setting(
        "filters", "weights: unstructured, by magnitude", choices=("filters", "weights")
    )
    filters: str = setting(
        "conv",
        "conv: convolutions one by one, BatchNorm untouched; conv_bn: BatchNorm decays with its "
        "filters and goes with those that are pruned for good; coupled: and one choice for all "
        "that is summed up",
        choices=("conv", "conv_bn", "coupled"),
    )
    patterns: tuple[str, ...] = setting((), "of kernels' paths, in place of the networks' filters")
    skip: tuple[str, ...] = setting((), "patterns of kernels that are left alone")
    criterion: str = setting(
        "", "'' is the method's", choices=("", "l1", "l2", "geometric_median", "random")
    )
    distance: str = setting("l2", "of the geometric median", choices=("l2", "l1", "cosine"))
    norm_rate: float = setting(
        0.0,
        "fraction of the filters that fpgm chooses by norm (FPGM-mix: 0.1)",
        at_least=0,
        below=1,
    )
    base: str = setting("", "of ghfp; '' is sfp", choices=("", "sfp", "asfp", "srfp", "asrfp"))
    rising: str = setting("asymptotic", "rate of asfp and asrfp", choices=("asymptotic", "cubic"))
    rate_from: float = setting(
        0.95, "fraction of training from which on the rate is the final one", at_least=0, at_most=1
    )
    decay: str = setting(
        "exponential", "of srfp and asrfp", choices=("exponential", "linear", "cosine")
    )
    sigma: float = setting(1e-5, "the end of the exponential decay", above=0, at_most=1)
    zero_from: float = setting(
        0.9, "fraction of training from which on the decay is 0", at_least=0, at_most=1
    )
    hard_fraction: str = setting("cubic", "of ghfp: cubic, cosine, or a number such as '0.5'")
    hard_from: float = setting(
        1.0, "fraction of training from which on all pruned filters are hard", at_least=0, at_most=1
    )
    scope: str = setting("layer", "global: one ranking of all layers", choices=("layer", "global"))
    counting: str = setting(
        "exact", "float: the official code's rounding", choices=("exact", "float")
    )
    before_training: bool = setting(True, "once before the first epoch, as in the official code")
    evaluate_before: bool = setting(True, "also without the epoch's last pruning (of hfp the same)")
    shrink_epochs: tuple[int, ...] = setting(
        (), "after which hard filters are taken out of the network", at_least=1
    )

    def __post_init__(self) -> None:
        _hard_fraction(self.hard_fraction)
        changed = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        if not self.method:
            if changed:
                raise ValueError(f"{changed[0]} has no effect without config.pruning.method")
            return
        effective = _effective(self)
        for name in changed:
            works, reason = effective.get(name, (True, ""))
            if not works:
                raise ValueError(f"{name}={getattr(self, name)!r} is {reason}")
        if self.patterns and self.filters == "coupled":
            raise ValueError("patterns choose convolutions one by one; filters='coupled' does not")


def _effective(settings: Pruning) -> dict[str, tuple[bool, str]]:
    """Settings that some choices leave without effect: whether they have one, and for what."""
    soft, single = _soft(settings), settings.unit == "weights"
    median = not single and _criterion_name(settings) == "geometric_median"
    return {
        "base": (settings.method == "ghfp", "for method 'ghfp'"),
        "hard_fraction": (settings.method == "ghfp", "for method 'ghfp'"),
        "rising": (soft in ("asfp", "asrfp"), "for 'asfp' and 'asrfp'"),
        "decay": (soft in ("srfp", "asrfp"), "for 'srfp' and 'asrfp'"),
        "criterion": (not single, "for filters: weights go by their magnitude"),
        "distance": (median, "for the geometric median"),
        "norm_rate": (median, "for the geometric median"),
        "filters": (not single, "for filters, not for single weights"),
    }


def _hard_fraction(text: str) -> float | None:
    """A constant hard fraction, or None for a schedule by name.

    Raises:
      ValueError: neither a number in [0, 1] nor a known schedule.
    """
    if text in ("cubic", "cosine"):
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(
            f"hard_fraction={text!r} is unknown; use cubic, cosine or a number from 0 to 1"
        )
    return number


def _soft(settings: Pruning) -> str:
    """The method whose rate and decay are followed."""
    return settings.base or "sfp" if settings.method == "ghfp" else settings.method


def _criterion_name(settings: Pruning) -> str:
    return settings.criterion or ("geometric_median" if settings.method == "fpgm" else "l2")


def schedules(settings: Pruning, epochs: int) -> pruning.Schedules:
    """The three schedules of the method that `config.pruning` names.

    Raises:
      ValueError: an unknown name, a number out of range, or filters that never become zero.
    """
    rising = {
        "asymptotic": forms.asymptotic(settings.rate, epochs, exact_from=settings.rate_from),
        "cubic": forms.cubic(settings.rate, epochs, exact_from=settings.rate_from),
    }
    ending = {"zero_from": settings.zero_from}
    falling = {
        "exponential": forms.exponential_decay(epochs, end=settings.sigma, **ending),
        "linear": forms.linear_decay(epochs, **ending),
        "cosine": forms.cosine_decay(epochs, **ending),
    }
    hard = {
        "cubic": forms.cubic(1.0, epochs, exact_from=settings.hard_from),
        "cosine": forms.cosine(1.0, epochs, exact_from=settings.hard_from),
    }
    soft = _soft(settings)
    chosen: dict[str, Any] = {}
    if soft in ("asfp", "asrfp"):
        chosen["rising"] = rising[settings.rising]
    if soft in ("srfp", "asrfp"):
        chosen["decay"] = falling[settings.decay]
    if settings.method == "ghfp":
        constant = _hard_fraction(settings.hard_fraction)
        chosen["hard_fraction"] = (
            hard[settings.hard_fraction] if constant is None else forms.constant(constant)
        )
        chosen["base"] = soft
    plan = pruning.method_schedules(settings.method, settings.rate, epochs=epochs, **chosen)
    if plan.decay(epochs - 1) > 0 and plan.hard_fraction(epochs - 1) < 1:
        raise ValueError(
            f"zero_from={settings.zero_from}: pruned filters would not be zero in the end; use "
            "less than 1"
        )
    return plan


def transformation(
    settings: Pruning,
    select: pruning.Selection,
    plan: pruning.Schedules,
    *,
    every: int,
    epochs: int,
    seed: int,
) -> optax.GradientTransformation:
    """The pruning of filters or of weights.

    Args:
      settings: `config.pruning`.
      select: what is pruned.
      plan: of `schedules`.
      every: steps per epoch.
      epochs: of the run.
      seed: of random filters.

    Raises:
      ValueError: an unknown choice, or a number out of range.
    """
    options = {"counting": settings.counting, "scope": settings.scope, **plan._asdict()}
    options |= {"every": every, "epochs": epochs}
    if settings.unit == "weights":
        return pruning.weight_pruning(select, **options)
    return pruning.filter_pruning(select, criterion=_criterion(settings, seed), **options)


def _criterion(settings: Pruning, seed: int) -> criteria.Criterion:
    median = criteria.geometric_median(settings.distance)
    if settings.norm_rate:
        median = criteria.mixed(settings.norm_rate, settings.distance)
    known = {
        "l1": criteria.l1,
        "l2": criteria.l2,
        "geometric_median": median,
        "random": criteria.random(seed),
    }
    return known[_criterion_name(settings)]
