"""From `config.pruning` to filters, schedules and a transformation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optax
from ml_collections import ConfigDict

from kdjax import pruning
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.models import StagedNetwork
from kdjax.pruning import criteria
from kdjax.pruning import schedules as forms
from kdjax.pruning.paths import leaves, matching

_FILTERS = ("official", "norms", "residual")
_UNITS = ("filters", "weights")


def selection(settings: ConfigDict, networks: Sequence[StagedNetwork]) -> pruning.Selection:
    """The filters of a cohort's parameters that `config.pruning` means.

    Raises:
      UserError: an unknown choice.
    """
    for name, known in (("filters", _FILTERS), ("unit", _UNITS)):
        if settings[name] not in known:
            raise UserError(
                f"config.pruning.{name}={settings[name]!r} is unknown; use {' or '.join(known)}"
            )
    norms = settings.filters != "official"

    def by_pattern(params):
        words = ("conv", "bn") if norms else None
        inside = {"cohort": params["cohort"]}
        return pruning.by_pattern(inside, settings.patterns, skip=settings.skip, norms=words)

    def of_networks(params):
        groups = []
        for index, network in enumerate(networks):
            own = pruning.filter_groups(
                network, norms=norms, residual=settings.filters == "residual"
            )
            for prefix in _places(params, index):
                groups += _present(own, prefix, leaves(params))
        if settings.skip:
            groups = _without(groups, settings.skip)
        return groups

    return by_pattern if settings.patterns else of_networks


def _places(params: base.Params, index: int) -> list[str]:
    """Where a network's layers are: what it shares, itself, its backbone and branches."""
    own = f"cohort/network_{index}"
    inside = params["cohort"].get(f"network_{index}", {})
    parts = [name for name in inside if name == "backbone" or name.startswith("branch")]
    shared = ["cohort/trunk"] * (index == 0 and "trunk" in params["cohort"])
    return shared + ([f"{own}/{part}" for part in parts] or [own])


def _present(groups, prefix: str, arrays: dict) -> list[pruning.FilterGroup]:
    """The groups with a prefix before all paths, those whose arrays are there."""

    def outside(paths):
        return tuple(f"{prefix}/{path}" for path in paths)

    return [
        each._replace(
            name=f"{prefix}/{each.name}", scored=outside(each.scored), masked=outside(each.masked)
        )
        for each in groups
        if all(path in arrays for path in outside(each.leaves))
    ]


def _without(groups, patterns) -> list[pruning.FilterGroup]:
    """The groups none of whose kernels matches a pattern.

    Raises:
      ValueError: a pattern that matches none.
    """
    kernels = [path for group in groups for path in group.scored]
    unwanted = set(matching(kernels, patterns, "skip pattern"))
    return [group for group in groups if not unwanted & set(group.scored)]


def schedules(settings: ConfigDict, epochs: int) -> pruning.Schedules:
    """The three schedules of the method that `config.pruning` names.

    Raises:
      ValueError: an unknown name, or a number out of range.
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
    soft = settings.base or "sfp" if settings.method == "ghfp" else settings.method
    chosen: dict[str, Any] = {}
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
    elif settings.base:
        raise ValueError(f"base={settings.base!r} is for method 'ghfp'")
    return pruning.method_schedules(settings.method, settings.rate, epochs=epochs, **chosen)


def _one_of(known: dict[str, Any], name: str, setting: str) -> Any:
    if name not in known:
        raise ValueError(f"{setting}={name!r} is unknown; use one of {', '.join(known)}")
    return known[name]


def transformation(
    settings: ConfigDict, select: pruning.Selection, plan: pruning.Schedules, **clock
) -> optax.GradientTransformation:
    options = {"counting": settings.counting, "scope": settings.scope, **plan._asdict(), **clock}
    if settings.unit == "weights":
        if settings.criterion:
            raise ValueError(f"criterion={settings.criterion!r}: weights go by their magnitude")
        return pruning.weight_pruning(select, **options)
    return pruning.filter_pruning(select, criterion=_criterion(settings), **options)


def _criterion(settings: ConfigDict) -> criteria.Criterion:
    name = settings.criterion or ("geometric_median" if settings.method == "fpgm" else "l2")
    if settings.norm_rate and name != "geometric_median":
        raise ValueError(f"norm_rate={settings.norm_rate} is for the geometric median")
    median = criteria.geometric_median(settings.distance)
    if settings.norm_rate:
        median = criteria.mixed(settings.norm_rate, settings.distance)
    known = {
        "l1": criteria.l1,
        "l2": criteria.l2,
        "geometric_median": median,
        "random": criteria.random(0),
    }
    return _one_of(known, name, "criterion")
