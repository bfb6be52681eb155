"""How each method is built from a config."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from kdjax import models
from kdjax.data import order, transformations
from kdjax.errors import UserError
from kdjax.methods import base, self_distill
from kdjax.methods.base import Method
from kdjax.methods.cross_entropy import cross_entropy
from kdjax.methods.distill import BASELINES, by_class, distill
from kdjax.methods.dml import dml
from kdjax.methods.hssakd import hssakd_online, hssakd_student, hssakd_teacher
from kdjax.methods.mcl import mcl
from kdjax.methods.mixskd import mixskd
from kdjax.networks import InputSpec, Network, renormalization, store

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Parts(NamedTuple):
    """What a method is built from: see `registry.create`."""

    config: ConfigDict
    cohort: models.Cohort
    axis_name: str | None
    train_labels: np.ndarray | None
    teacher: Network | None
    images: InputSpec | None

    def trained(self) -> Network:
        """The network that `config.teacher` names, unless another one is given."""
        if self.teacher is not None:
            return self.teacher
        return store.from_config(
            self.config.teacher, "config.teacher", self.cohort.networks[0].num_classes
        )


def _mcl(parts: Parts) -> Method:
    config = parts.config
    if config.data.images_per_class < 2:
        raise UserError(
            "method 'mcl' contrasts images of one class within a batch; set "
            f"config.data.images_per_class to 2 or more (it is {config.data.images_per_class})"
        )
    return mcl(parts.cohort, axis_name=parts.axis_name, **config.mcl)


def _distill(parts: Parts) -> Method:
    """The student and teacher of the config, with the baseline that `config.method` names."""
    config, cohort, axis_name, train_labels, *_ = parts
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
    *teacher, renormalize = _teacher(parts)
    return distill(
        cohort,
        *teacher,
        baseline,
        renormalize=renormalize,
        steps_per_epoch=steps,
        constants=constants,
        **weights,
    )


def _teacher(parts: Parts) -> tuple[nn.Module, dict, base.Renormalize]:
    """The network that `config.teacher` names, its variables, and what its images go through."""
    config, teacher = parts.config, parts.trained()
    wanted = config.teacher.network
    if wanted and teacher.spec.name != wanted:
        raise UserError(
            f"config.teacher.checkpoint={config.teacher.checkpoint} holds "
            f"{teacher.spec.full_name}, "
            f"config.teacher.network={wanted!r} says otherwise; name the one that is meant"
        )
    dtype = config.teacher.dtype or config.dtype
    if dtype not in DTYPES:
        raise UserError(f"config.teacher.dtype={dtype!r} is unknown; use '' or {joined(DTYPES)}")
    source = parts.images.normalization if parts.images is not None else None
    renormalize = renormalization(source, teacher.spec.input.normalization)
    return teacher.module(dtype=DTYPES[dtype]), teacher.variables, renormalize


def _hssakd_teacher(parts: Parts) -> Method:
    config = parts.config
    branched, chosen = _with_branches(parts)
    if not config.hssakd.freeze_backbone:
        return hssakd_teacher(branched, transformations=chosen)
    found = parts.trained()
    if found.spec.full_name != config.networks[0]:
        raise UserError(
            f"config.hssakd.freeze_backbone: config.teacher.checkpoint={config.teacher.checkpoint} "
            f"holds {found.spec.full_name}, not the {config.networks[0]} of config.networks"
        )
    if config.evaluation.best in ("mean/top1", "network_0/top1"):
        raise UserError(
            f"config.evaluation.best={config.evaluation.best!r} never changes with a frozen "
            "backbone; name a branch's, such as network_0/branch3/joint/top1"
        )
    return hssakd_teacher(branched, transformations=chosen, frozen_backbone=found.variables)


def _hssakd_student(parts: Parts) -> Method:
    _check_not_frozen(parts.config)
    branched, chosen = _with_branches(parts)
    temperature = parts.config.hssakd.temperature
    *teacher, renormalize = _teacher(parts)
    return hssakd_student(
        branched,
        *teacher,
        transformations=chosen,
        temperature=temperature,
        renormalize=renormalize,
    )


def _hssakd_online(parts: Parts) -> Method:
    _check_not_frozen(parts.config)
    branched, chosen = _with_branches(parts)
    temperature = parts.config.hssakd.temperature
    return hssakd_online(branched, transformations=chosen, temperature=temperature)


def _with_branches(parts: Parts) -> tuple[models.Cohort, transformations.Transformations]:
    """The cohort with branches for the transformations that the config names, and these."""
    config, cohort = parts.config, parts.cohort
    _check_nothing_shared(parts)
    chosen = transformations.create(config.hssakd.transformations)
    networks = (models.hsakd_branches(each, chosen.count) for each in cohort.networks)
    return models.Cohort(tuple(networks)), chosen


def _mixskd(parts: Parts) -> Method:
    _check_nothing_shared(parts)
    networks = tuple(models.self_taught(each) for each in parts.cohort.networks)
    return mixskd(models.Cohort(networks), **parts.config.mixskd)


def _check_nothing_shared(parts: Parts) -> None:
    if parts.cohort.shared_stages:
        raise UserError(
            f"config.shared_stages={parts.cohort.shared_stages}: networks of method "
            f"{parts.config.method!r} share nothing; set it to 0"
        )


def _self_distill(parts: Parts) -> Method:
    return self_distill.build(parts.config, parts.cohort, parts.axis_name, parts.train_labels)


def _check_not_frozen(config: ConfigDict) -> None:
    if config.hssakd.freeze_backbone:
        raise UserError(
            f"config.hssakd.freeze_backbone is for method 'hssakd_teacher', not {config.method!r}"
        )


BUILDERS = {
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
TAUGHT = {"hssakd_student", *BASELINES}


def joined(names) -> str:
    """Names as a sentence has them."""
    return " or ".join(repr(name) for name in names)
