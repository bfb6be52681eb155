"""Registration of the methods of HSAKD and HSSAKD."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from kdjax import models
from kdjax.data import transformations
from kdjax.errors import UserError
from kdjax.methods import base, hssakd
from kdjax.methods.registry import register
from kdjax.models.cohort import one_architecture
from kdjax.settings import setting

_SOURCE = "Yang et al., IJCAI 2021, arXiv 2107.13715; TNNLS 2022, arXiv 2109.03075"


@dataclasses.dataclass(frozen=True)
class Hssakd:
    """`config.hssakd`."""

    temperature: float = setting(3.0, "T of the divergences", above=0)
    transformations: str = setting(
        "rotations", "or 'color_permutations', 'both': M = 4, 6, 24", choices=transformations.NAMES
    )
    freeze_backbone: bool = setting(
        False, "of hssakd_teacher: config.teacher is its backbone, and stays as it is"
    )


def _freezes(settings: Hssakd) -> bool:
    return settings.freeze_backbone


def _check_best(config: ConfigDict) -> None:
    """Raises `UserError` if the best checkpoint is chosen by a frozen backbone's accuracy."""
    frozen = config.hssakd.freeze_backbone
    if frozen and config.evaluation.best in ("mean/top1", "network_0/top1"):
        raise UserError(
            f"config.evaluation.best={config.evaluation.best!r} never changes with a frozen "
            "backbone; name a branch's, such as network_0/branch3/joint/top1"
        )


@register(
    "hssakd_teacher",
    settings=Hssakd,
    section="hssakd",
    family="hsakd",
    teacher_if=_freezes,
    continues_teacher=True,
    check_config=_check_best,
    source=_SOURCE,
    paper="WRN-40-2 76.45 -> 80.70",
)
def hssakd_teacher(
    cohort: models.Cohort, settings: Hssakd, *, teacher: Callable[..., Any] | None = None
) -> base.Method:
    """`hssakd.hssakd_teacher` with the settings of `config.hssakd`.

    Raises:
      UserError: the frozen backbone has another architecture than the cohort's network.
      ValueError: there is no `teacher` with a frozen backbone.
    """
    branched, views = _with_branches(cohort, settings)
    if not settings.freeze_backbone:
        return hssakd.hssakd_teacher(branched, transformations=views)
    if teacher is None:
        raise ValueError("config.hssakd.freeze_backbone: give the backbone as `teacher`")
    trained = teacher()
    if not _same_network(trained.network, cohort.networks[0]):
        raise UserError(
            "config.hssakd.freeze_backbone: config.teacher.checkpoint holds "
            f"{trained.spec.full_name}, not the network of config.networks"
        )
    return hssakd.hssakd_teacher(branched, transformations=views, frozen_backbone=trained.variables)


@register(
    "hssakd_student",
    settings=Hssakd,
    section="hssakd",
    family="hsakd",
    source=_SOURCE,
    paper="WRN-40-2 -> WRN-16-2: 73.57 -> 78.67",
)
def hssakd_student(
    cohort: models.Cohort, settings: Hssakd, *, teacher: Callable[..., Any]
) -> base.Method:
    """`hssakd.hssakd_student` with the settings of `config.hssakd`."""
    _check_not_frozen(settings, "hssakd_student")
    branched, views = _with_branches(cohort, settings)
    trained = teacher()
    return hssakd.hssakd_student(
        branched,
        trained.network,
        trained.variables,
        transformations=views,
        temperature=settings.temperature,
        renormalize=trained.renormalize,
    )


@register(
    "hssakd_online",
    settings=Hssakd,
    section="hssakd",
    networks=2,
    source="Yang et al., TNNLS 2022, arXiv 2109.03075",
    paper="WRN-40-2 76.44 -> 82.58",
)
def hssakd_online(cohort: models.Cohort, settings: Hssakd) -> base.Method:
    """`hssakd.hssakd_online` with the settings of `config.hssakd`."""
    _check_not_frozen(settings, "hssakd_online")
    branched, views = _with_branches(cohort, settings)
    return hssakd.hssakd_online(branched, transformations=views, temperature=settings.temperature)


def _same_network(network: nn.Module, expected: models.StagedNetwork) -> bool:
    """Whether two networks have one architecture, whatever their compute dtypes."""
    if type(network) is not type(expected):
        return False
    kept = {name: getattr(expected, name) for name in ("dtype", "axis_name", "trace_once")}
    network = network.clone(**kept)
    return one_architecture((network, expected))


def _with_branches(
    cohort: models.Cohort, settings: Hssakd
) -> tuple[models.Cohort, transformations.Transformations]:
    """The cohort with branches for the transformations of the settings, and the transformations."""
    base.check_nothing_shared(cohort, "hssakd")
    views = transformations.create(settings.transformations)
    networks = (models.hsakd_branches(network, views.count) for network in cohort.networks)
    return models.Cohort(tuple(networks)), views


def _check_not_frozen(settings: Hssakd, name: str) -> None:
    if settings.freeze_backbone:
        raise UserError(
            f"config.hssakd.freeze_backbone is for method 'hssakd_teacher', not {name!r}"
        )
