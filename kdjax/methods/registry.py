"""From a config to a method."""

import difflib
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from kdjax import models, pretrained
from kdjax.data import order, transformations
from kdjax.errors import UserError
from kdjax.methods import self_distill
from kdjax.methods.base import Method
from kdjax.methods.cross_entropy import cross_entropy
from kdjax.methods.distill import BASELINES, by_class, distill
from kdjax.methods.dml import dml
from kdjax.methods.hssakd import hssakd_online, hssakd_student, hssakd_teacher
from kdjax.methods.mcl import mcl
from kdjax.methods.mixskd import mixskd
from kdjax.methods.pruned import pruned
from kdjax.methods.start import started
from kdjax.pretrained import Pretrained

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class _Parts(NamedTuple):
    """What a method is built from: see `create`."""

    config: ConfigDict
    cohort: models.Cohort
    axis_name: str | None
    train_labels: np.ndarray | None
    teacher: Pretrained | None

    def trained(self) -> Pretrained:
        """The network that `config.teacher` names, unless another one is given."""
        if self.teacher is not None:
            return self.teacher
        return pretrained.teacher(self.config.teacher, self.cohort.networks[0].num_classes)


def _mcl(parts: _Parts) -> Method:
    config = parts.config
    if config.data.images_per_class < 2:
        raise UserError(
            "method 'mcl' contrasts images of one class within a batch; set "
            f"config.data.images_per_class to 2 or more (it is {config.data.images_per_class})"
        )
    return mcl(parts.cohort, axis_name=parts.axis_name, **config.mcl)


def _distill(parts: _Parts) -> Method:
    """The student and teacher of the config, with the baseline that `config.method` names."""
    config, cohort, axis_name, train_labels, _ = parts
    settings = dict(config.distill[config.method])
    weights = {name: settings.pop(name) for name in ("weight", "label_weight")}
    weights |= {name: config.distill[name] for name in ("teacher_weight", "temperature")}
    if "init_learning_rate" in settings:
        rate = settings.pop("init_learning_rate") / config.optimizer.learning_rate
        settings["init_rate"] = rate
    baseline = BASELINES[config.method](
        axis_name=axis_name, norm_axis_name=cohort.networks[0].axis_name, **settings
    )
    steps = None
    if train_labels is not None:
        steps = order.steps_per_epoch(len(train_labels), config.batch_size)
    constants = {"others": by_class(train_labels)} if config.method == "crd" else None
    return distill(
        cohort,
        *_teacher(parts),
        baseline,
        steps_per_epoch=steps,
        constants=constants,
        **weights,
    )


def _teacher(parts: _Parts) -> tuple[nn.Module, dict]:
    """The network that `config.teacher` names, and its variables."""
    config, teacher = parts.config, parts.trained()
    wanted = config.teacher.network
    if wanted and _plain(teacher.name) != wanted:
        raise UserError(
            f"config.teacher.checkpoint={config.teacher.checkpoint} holds {teacher.name}, "
            f"config.teacher.network={wanted!r} says otherwise; name the one that is meant"
        )
    dtype = config.teacher.dtype or config.dtype
    if dtype not in DTYPES:
        raise UserError(f"config.teacher.dtype={dtype!r} is unknown; use '' or {_join(DTYPES)}")
    return teacher.module(dtype=DTYPES[dtype]), teacher.variables


def _plain(name: str) -> str:
    """The name of a network without the suffix for its branches."""
    plain, _, form = name.rpartition("_")
    return plain if plain in models.names() and form in models.forms() else name


def _hssakd_teacher(parts: _Parts) -> Method:
    config = parts.config
    branched, chosen = _with_branches(parts)
    if not config.hssakd.freeze_backbone:
        return hssakd_teacher(branched, transformations=chosen)
    found = parts.trained()
    if found.name != config.networks[0]:
        raise UserError(
            f"config.hssakd.freeze_backbone: config.teacher.checkpoint={config.teacher.checkpoint} "
            f"holds {found.name}, not the {config.networks[0]} of config.networks"
        )
    if config.evaluation.best in ("mean/top1", "network_0/top1"):
        raise UserError(
            f"config.evaluation.best={config.evaluation.best!r} never changes with a frozen "
            "backbone; name a branch's, such as network_0/branch3/joint/top1"
        )
    return hssakd_teacher(branched, transformations=chosen, frozen_backbone=found.variables)


def _hssakd_student(parts: _Parts) -> Method:
    _check_not_frozen(parts.config)
    branched, chosen = _with_branches(parts)
    temperature = parts.config.hssakd.temperature
    return hssakd_student(
        branched, *_teacher(parts), transformations=chosen, temperature=temperature
    )


def _hssakd_online(parts: _Parts) -> Method:
    _check_not_frozen(parts.config)
    branched, chosen = _with_branches(parts)
    temperature = parts.config.hssakd.temperature
    return hssakd_online(branched, transformations=chosen, temperature=temperature)


def _with_branches(parts: _Parts) -> tuple[models.Cohort, transformations.Transformations]:
    """The cohort with branches for the transformations that the config names, and these."""
    config, cohort = parts.config, parts.cohort
    _check_nothing_shared(parts)
    chosen = transformations.create(config.hssakd.transformations)
    networks = (models.hsakd_branches(each, chosen.count) for each in cohort.networks)
    return models.Cohort(tuple(networks)), chosen


def _mixskd(parts: _Parts) -> Method:
    _check_nothing_shared(parts)
    networks = tuple(models.self_taught(each) for each in parts.cohort.networks)
    return mixskd(models.Cohort(networks), **parts.config.mixskd)


def _check_nothing_shared(parts: _Parts) -> None:
    if parts.cohort.shared_stages:
        raise UserError(
            f"config.shared_stages={parts.cohort.shared_stages}: networks of method "
            f"{parts.config.method!r} share nothing; set it to 0"
        )


def _self_distill(parts: _Parts) -> Method:
    return self_distill.build(parts.config, parts.cohort, parts.axis_name, parts.train_labels)


def _check_not_frozen(config: ConfigDict) -> None:
    if config.hssakd.freeze_backbone:
        raise UserError(
            f"config.hssakd.freeze_backbone is for method 'hssakd_teacher', not {config.method!r}"
        )


_BUILDERS = {
    "cross_entropy": lambda parts: cross_entropy(parts.cohort),
    "dml": lambda parts: dml(parts.cohort, **parts.config.dml),
    "hssakd_online": _hssakd_online,
    "hssakd_student": _hssakd_student,
    "hssakd_teacher": _hssakd_teacher,
    "mcl": _mcl,
    "mixskd": _mixskd,
    **dict.fromkeys(BASELINES, _distill),
    **dict.fromkeys(self_distill.METHODS, _self_distill),
}


# Methods that learn from a trained network.
_TAUGHT = {"hssakd_student", *BASELINES}


def needs_teacher(config: ConfigDict) -> bool:
    """Whether the method of `config` learns from a trained network, `config.teacher`."""
    frozen = config.method == "hssakd_teacher" and config.hssakd.freeze_backbone
    return frozen or config.method in _TAUGHT


def networks(
    config: ConfigDict,
    num_classes: int,
    *,
    axis_name: str | None = None,
    compactions: Mapping[str, models.Compaction] | None = None,
) -> tuple[models.StagedNetwork, ...]:
    """The networks that `config.networks` names; arguments are those of `create`.

    Raises:
      UserError: unknown network or dtype, none, or one with branches.
    """
    if config.dtype not in DTYPES:
        raise UserError(f"config.dtype={config.dtype!r} is unknown; use {_join(DTYPES)}")
    if not config.networks:
        raise UserError("config.networks is empty; name at least one network")
    found = []
    for index, name in enumerate(config.networks):
        network = models.create(
            name,
            num_classes=num_classes,
            dtype=DTYPES[config.dtype],
            axis_name=axis_name if config.sync_batch_norm else None,
        )
        if not isinstance(network, models.StagedNetwork):
            raise UserError(
                f"config.networks: {name!r} has branches, which method {config.method!r} does not "
                "train; name the network without its suffix"
            )
        compaction = (compactions or {}).get(f"network_{index}")
        found.append(network if compaction is None else network.clone(compaction=compaction))
    return tuple(found)


def create(
    config: ConfigDict,
    *,
    num_classes: int,
    axis_name: str | None,
    train_labels: np.ndarray | None = None,
    teacher: Pretrained | None = None,
    compactions: Mapping[str, models.Compaction] | None = None,
) -> Method:
    """The method that `config.method` names, over the cohort that `config.networks` names.

    Args:
      config: see `kdjax.config`.
      num_classes: of the data.
      axis_name: the mapped device axis; None outside a map.
      train_labels: `[images]` of the training split, for methods that look at all of it or count
        its epochs.
      teacher: takes the place of the network that `config.teacher` names.
      compactions: which filters are left of networks that were made smaller, by 'network_i'.

    Raises:
      UserError: unknown method, network or dtype, or settings that the method cannot run with.
    """
    if config.method not in _BUILDERS:
        longer = [name for name in _BUILDERS if config.method and name.startswith(config.method)]
        near = longer or difflib.get_close_matches(config.method, _BUILDERS, n=3, cutoff=0.3)
        known = _join(near or _BUILDERS)
        raise UserError(f"config.method={config.method!r} is unknown; did you mean {known}?")
    members = networks(config, num_classes, axis_name=axis_name, compactions=compactions)
    stages = members[0].num_stages
    if not 0 <= config.shared_stages <= stages:
        raise UserError(
            f"config.shared_stages={config.shared_stages}: {config.networks[0]} has {stages} "
            "stages; share none (0) or up to all of them"
        )
    cohort = models.Cohort(members, shared_stages=config.shared_stages)
    method = _BUILDERS[config.method](_Parts(config, cohort, axis_name, train_labels, teacher))
    method = _started(method, config, num_classes, compactions)
    return _pruned(method, config, members, train_labels)


def _started(
    method: Method,
    config: ConfigDict,
    num_classes: int,
    compactions: Mapping[str, models.Compaction] | None,
) -> Method:
    """`method`, from the weights that `config.start` names, if any.

    Networks that were made smaller while they trained have left their start behind.
    """
    if not config.start.checkpoint or compactions:
        return method
    network = pretrained.named(config.start, "config.start", num_classes)
    return started(method, network, config.networks)


def _pruned(
    method: Method,
    config: ConfigDict,
    networks: tuple[models.StagedNetwork, ...],
    train_labels: np.ndarray | None,
) -> Method:
    """`method`, with the pruning that `config.pruning` describes, if any."""
    every = 0
    if config.pruning.method:
        if train_labels is None:
            raise ValueError("pruning counts epochs: give train_labels")
        every = order.steps_per_epoch(len(train_labels), config.batch_size)
    return pruned(method, networks, config, every=every)


def _join(names) -> str:
    return " or ".join(repr(name) for name in names)
