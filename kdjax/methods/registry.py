"""From a config to a method."""

import difflib

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from kdjax import models, pretrained
from kdjax.errors import UserError
from kdjax.methods.base import Method
from kdjax.methods.cross_entropy import cross_entropy
from kdjax.methods.dml import dml
from kdjax.methods.kd import kd
from kdjax.methods.mcl import mcl

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def _mcl(config: ConfigDict, cohort: models.Cohort, axis_name: str | None) -> Method:
    if config.data.images_per_class < 2:
        raise UserError(
            "method 'mcl' contrasts images of one class within a batch; set "
            f"config.data.images_per_class to 2 or more (it is {config.data.images_per_class})"
        )
    return mcl(cohort, axis_name=axis_name, **config.mcl)


def _kd(config: ConfigDict, cohort: models.Cohort, axis_name: str | None) -> Method:
    del axis_name
    return kd(cohort, *_teacher(config, cohort), **config.kd)


def _teacher(config: ConfigDict, cohort: models.Cohort) -> tuple[nn.Module, dict]:
    """The network that `config.teacher` names, and its variables."""
    teacher = pretrained.teacher(config.teacher, cohort.networks[0].num_classes)
    dtype = config.teacher.dtype or config.dtype
    if dtype not in DTYPES:
        raise UserError(f"config.teacher.dtype={dtype!r} is unknown; use '' or {_join(DTYPES)}")
    return teacher.module(dtype=DTYPES[dtype]), teacher.variables


_BUILDERS = {
    "cross_entropy": lambda config, cohort, axis_name: cross_entropy(cohort),
    "dml": lambda config, cohort, axis_name: dml(cohort, **config.dml),
    "kd": _kd,
    "mcl": _mcl,
}


# Methods that learn from a trained network.
_TAUGHT = {"kd"}


def needs_teacher(config: ConfigDict) -> bool:
    """Whether the method of `config` learns from a trained network, `config.teacher`."""
    return config.method in _TAUGHT


def create(config: ConfigDict, *, num_classes: int, axis_name: str | None) -> Method:
    """The method that `config.method` names, over the cohort that `config.networks` names.

    Args:
      config: see `kdjax.config`.
      num_classes: of the data.
      axis_name: the mapped device axis; None outside a map.

    Raises:
      UserError: unknown method, network or dtype, or settings that the method cannot run with.
    """
    if config.method not in _BUILDERS:
        near = difflib.get_close_matches(config.method, _BUILDERS, n=3, cutoff=0.3) or _BUILDERS
        raise UserError(f"config.method={config.method!r} is unknown; did you mean {_join(near)}?")
    if config.dtype not in DTYPES:
        raise UserError(f"config.dtype={config.dtype!r} is unknown; use {_join(DTYPES)}")
    if not config.networks:
        raise UserError("config.networks is empty; name at least one network")
    networks = tuple(
        models.create(
            name,
            num_classes=num_classes,
            dtype=DTYPES[config.dtype],
            axis_name=axis_name if config.sync_batch_norm else None,
        )
        for name in config.networks
    )
    for name, network in zip(config.networks, networks, strict=True):
        if not isinstance(network, models.StagedNetwork):
            raise UserError(
                f"config.networks: {name!r} has branches, which method {config.method!r} does not "
                "train; name the network without its suffix"
            )
    stages = networks[0].num_stages
    if not 0 <= config.shared_stages <= stages:
        raise UserError(
            f"config.shared_stages={config.shared_stages}: {config.networks[0]} has {stages} "
            "stages; share none (0) or up to all of them"
        )
    cohort = models.Cohort(networks, shared_stages=config.shared_stages)
    return _BUILDERS[config.method](config, cohort, axis_name)


def _join(names) -> str:
    return " or ".join(repr(name) for name in names)
