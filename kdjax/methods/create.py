"""From a config to a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from kdjax import models
from kdjax.data import order
from kdjax.data.objects.augmentation import Augmentation
from kdjax.errors import UserError
from kdjax.methods.averaged import Ema, averaged
from kdjax.methods.base import Method, Renormalize
from kdjax.methods.pruned import pruned
from kdjax.methods.registry import METHODS, Clock, Context, finished
from kdjax.methods.smoothed import smoothed
from kdjax.methods.start import started
from kdjax.methods.starting_networks import compactions_of, starting_network
from kdjax.networks import (
    InputSpec,
    Network,
    NetworkSpec,
    config_sections,
    renormalization,
)
from kdjax.registry import joined
from kdjax.settings import check

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Teacher(NamedTuple):
    """A trained network that is learned from.

    Attributes:
      network: the module, in the teacher's compute dtype.
      variables: its weights.
      spec: what the network is.
      renormalize: from the students' images to the teacher's.
    """

    network: nn.Module
    variables: dict[str, Any]
    spec: NetworkSpec
    renormalize: Renormalize


def needs_teacher(config: ConfigDict) -> bool:
    """Whether the method of `config` learns from a trained network, `config.teacher`."""
    return METHODS[config.method].needs_teacher(config)


def objects_augmentation(config: ConfigDict) -> Augmentation | None:
    """How the method of `config` augments images with objects; None if it does not read these.

    Raises:
      UserError: settings that the method cannot run with.
    """
    entry = METHODS[config.method]
    return entry.objects and entry.objects(entry.check(config))


def networks(
    config: ConfigDict,
    num_classes: int,
    *,
    axis_name: str | None = None,
    compactions: Mapping[str, models.Compaction] | None = None,
) -> tuple[models.StagedNetwork, ...]:
    """The networks that `config.networks` names.

    Args:
      config, num_classes, axis_name: see `create`.
      compactions: which filters are left of networks that are smaller, by 'network_i'.

    Raises:
      UserError: unknown network or dtype, none, or one with branches.
    """
    if not config.networks:
        raise UserError("config.networks is empty; name at least one network")
    cohort = []
    for index, name in enumerate(config.networks):
        network = models.create(
            name,
            num_classes=num_classes,
            dtype=_dtype(config.dtype, "config.dtype"),
            axis_name=axis_name if config.sync_batch_norm else None,
        )
        if not isinstance(network, models.StagedNetwork):
            raise UserError(
                f"config.networks: {name!r} has branches, which method {config.method!r} does not "
                "train; name the network without its suffix"
            )
        compaction = (compactions or {}).get(f"network_{index}")
        cohort.append(network.clone(compaction=compaction, remat=config.remat, trace_once=True))
    return tuple(cohort)


def create(
    config: ConfigDict,
    *,
    num_classes: int,
    axis_name: str | None,
    train_labels: np.ndarray | None = None,
    teacher: Network | None = None,
    images: InputSpec | None = None,
    compactions: Mapping[str, models.Compaction] | None = None,
    schedule: Callable[[jax.Array], jax.Array] | None = None,
) -> Method:
    """The method that `config.method` names, over the cohort that `config.networks` names.

    Args:
      config: see `kdjax.config`.
      num_classes: of the data.
      axis_name: the mapped device axis; None outside a map.
      train_labels: `[images]` of the training split, for methods that look at all of it or count
        its epochs.
      teacher: takes the place of the network that `config.teacher` names.
      images: that the networks see; a teacher that was trained with another normalization sees
        them in its own. None: it sees them as the networks do.
      compactions: which filters are left of networks that were made smaller, by 'network_i', whose
        weights come from elsewhere; None for networks as they start, see `config.start`.
      schedule: the learning rate of a step, for methods with an optimizer of their own; they cannot
        be trained without.

    Raises:
      UserError: unknown method, network or dtype, or settings that the method cannot run with.
    """
    entry = METHODS[config.method]
    settings = entry.check(config)
    start = None
    if compactions is None:
        start = starting_network(config, None if entry.transfers else num_classes)
    if compactions is None:
        compactions = {} if start is None else compactions_of(start.spec)
    members = networks(config, num_classes, axis_name=axis_name, compactions=compactions)
    cohort = models.Cohort(members, shared_stages=_shared_stages(config, members[0]))
    context = Context(
        axis_name=axis_name,
        clock=_clock(config, train_labels),
        partners=config.data.partners,
        train_labels=train_labels,
        learning_rate=config.optimizer.learning_rate,
        schedule=schedule,
        teacher=lambda: _teacher(config, num_classes, teacher, images),
    )
    chosen = {name: getattr(context, name) for name in entry.context}
    if "clock" in chosen and chosen["clock"] is None and entry.needs_clock:
        raise ValueError(f"method {config.method!r} counts epochs: give train_labels")
    method = finished(entry, entry.build(cohort, settings, **chosen))
    if start is not None:
        method = started(method, start, config.networks, transfers=entry.transfers)
    method = smoothed(method, config.method, config.smooth_labels)
    method = _pruned(method, config, train_labels)
    return averaged(method, check(Ema, config.ema, "config.ema"))


def _shared_stages(config: ConfigDict, network: models.StagedNetwork) -> int:
    if not 0 <= config.shared_stages <= network.num_stages:
        raise UserError(
            f"config.shared_stages={config.shared_stages}: {config.networks[0]} has "
            f"{network.num_stages} stages; share none (0) or up to all of them"
        )
    return config.shared_stages


def _clock(config: ConfigDict, train_labels: np.ndarray | None) -> Clock | None:
    if train_labels is None:
        return None
    steps = order.steps_per_epoch(len(train_labels), config.batch_size)
    return Clock(len(train_labels), steps, config.epochs)


def _teacher(
    config: ConfigDict, num_classes: int, given: Network | None, images: InputSpec | None
) -> Teacher:
    """The network that `config.teacher` names, unless another one is given."""
    trained = given or config_sections.from_config(config.teacher, "config.teacher", num_classes)
    wanted = config.teacher.network
    if wanted and trained.spec.name != wanted:
        raise UserError(
            f"config.teacher.checkpoint={config.teacher.checkpoint} holds "
            f"{trained.spec.full_name}, config.teacher.network={wanted!r} says otherwise; "
            "name the one that is meant"
        )
    dtype = _dtype(config.teacher.dtype or config.dtype, "config.teacher.dtype")
    source = images.normalization if images is not None else None
    renormalize = renormalization(source, trained.spec.input.normalization)
    return Teacher(trained.module(dtype=dtype), trained.variables, trained.spec, renormalize)


def _dtype(name: str, setting: str) -> Any:
    if name not in DTYPES:
        raise UserError(f"{setting}={name!r} is unknown; use {joined(DTYPES)}")
    return DTYPES[name]


def _pruned(
    method: Method,
    config: ConfigDict,
    train_labels: np.ndarray | None,
) -> Method:
    """`method`, with the pruning that `config.pruning` describes, if any."""
    every = 0
    if config.pruning.method:
        if train_labels is None:
            raise ValueError("pruning counts epochs: give train_labels")
        every = order.steps_per_epoch(len(train_labels), config.batch_size)
    return pruned(method, config, every=every)
