"""From `config.pruning` to schedules and a transformation."""

from __future__ import annotations

from typing import Any

import optax
from ml_collections import ConfigDict

from kdjax import pruning
from kdjax.config import pruning_defaults as config_pruning
from kdjax.pruning import criteria
from kdjax.pruning import schedules as forms

_KNOWN = {
    "method": pruning.METHODS,
    "filters": ("conv", "conv_bn", "coupled"),
    "unit": ("filters", "weights"),
}
_NUMBERS = ("rate_from", "zero_from", "hard_from")


def check_unused(settings: ConfigDict) -> None:
    """Raises a ValueError if settings were changed that need a method, of which there is none."""
    if changed := _changed(settings):
        raise ValueError(f"{changed[0]} has no effect without config.pruning.method")


def check(settings: ConfigDict) -> None:
    """Raises a ValueError for an unknown choice, and for a choice without effect on the others.

    Numbers of schedules (`sigma`, `rate_from`, `zero_from`, `hard_from`) may be set for all
    methods, as the files of `configs/` do.
    """
    for name, known in _KNOWN.items():
        if settings[name] not in known:
            raise ValueError(f"{name}={settings[name]!r} is unknown; use {' or '.join(known)}")
    for name in _NUMBERS:
        if not 0 <= settings[name] <= 1:
            raise ValueError(f"{name}={settings[name]} is not in [0, 1]")
    if not 0 < settings.sigma <= 1:
        raise ValueError(f"sigma={settings.sigma} is not in (0, 1]")
    soft, single = _soft(settings), settings.unit == "weights"
    median = not single and _criterion_name(settings) == "geometric_median"
    effective = {
        "base": (settings.method == "ghfp", "for method 'ghfp'"),
        "hard_fraction": (settings.method == "ghfp", "for method 'ghfp'"),
        "rising": (soft in ("asfp", "asrfp"), "for 'asfp' and 'asrfp'"),
        "decay": (soft in ("srfp", "asrfp"), "for 'srfp' and 'asrfp'"),
        "criterion": (not single, "for filters: weights go by their magnitude"),
        "distance": (median, "for the geometric median"),
        "norm_rate": (median, "for the geometric median"),
        "filters": (not single, "for filters, not for single weights"),
    }
    for name in _changed(settings):
        works, reason = effective.get(name, (True, ""))
        if not works:
            raise ValueError(f"{name}={settings[name]!r} is {reason}")
    if settings.patterns and settings.filters == "coupled":
        raise ValueError("patterns choose convolutions one by one; filters='coupled' does not")


def _changed(settings: ConfigDict) -> list[str]:
    """The settings that are not as they are by default."""

    def plain(value: Any) -> Any:  # JSON gives lists back
        return tuple(value) if isinstance(value, (list, tuple)) else value

    default = config_pruning.pruning()
    return [name for name in default if plain(settings[name]) != plain(default[name])]


def _soft(settings: ConfigDict) -> str:
    """The method whose rate and decay are followed."""
    return settings.base or "sfp" if settings.method == "ghfp" else settings.method


def _criterion_name(settings: ConfigDict) -> str:
    return settings.criterion or ("geometric_median" if settings.method == "fpgm" else "l2")


def schedules(settings: ConfigDict, epochs: int) -> pruning.Schedules:
    """The three schedules of the method that `config.pruning` names.

    Raises:
      ValueError: an unknown name, a number out of range, or filters that never become zero.
    """
    final = {"exact_from": settings.rate_from}
    rising = {
        "asymptotic": forms.asymptotic(settings.rate, epochs, **final),
        "cubic": forms.cubic(settings.rate, epochs, **final),
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
    soft, chosen = _soft(settings), {}
    if soft in ("asfp", "asrfp"):
        chosen["rising"] = _one_of(rising, settings.rising, "rising")
    if soft in ("srfp", "asrfp"):
        chosen["decay"] = _one_of(falling, settings.decay, "decay")
    if settings.method == "ghfp":
        fraction = settings.hard_fraction
        number = fraction.replace(".", "", 1).isdigit()
        constant = forms.constant(float(fraction)) if number else None
        chosen["hard_fraction"] = constant or _one_of(hard, fraction, "hard_fraction")
        chosen["base"] = soft
    plan = pruning.method_schedules(settings.method, settings.rate, epochs=epochs, **chosen)
    if plan.decay(epochs - 1) > 0 and plan.hard_fraction(epochs - 1) < 1:
        raise ValueError(
            f"zero_from={settings.zero_from}: pruned filters would not be zero in the end; use "
            "less than 1"
        )
    return plan


def _one_of(known: dict[str, Any], name: str, setting: str) -> Any:
    if name not in known:
        raise ValueError(f"{setting}={name!r} is unknown; use one of {', '.join(known)}")
    return known[name]


def transformation(
    settings: ConfigDict,
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


def _criterion(settings: ConfigDict, seed: int) -> criteria.Criterion:
    median = criteria.geometric_median(settings.distance)
    if settings.norm_rate:
        median = criteria.mixed(settings.norm_rate, settings.distance)
    known = {
        "l1": criteria.l1,
        "l2": criteria.l2,
        "geometric_median": median,
        "random": criteria.random(seed),
    }
    return _one_of(known, _criterion_name(settings), "criterion")
