"""From a config to a method."""

import difflib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from kdjax import models
from kdjax.data import order
from kdjax.errors import UserError
from kdjax.methods.base import Method
from kdjax.methods.builders import BUILDERS, DTYPES, TAUGHT, Parts, joined
from kdjax.methods.pruned import pruned
from kdjax.methods.start import started
from kdjax.networks import InputSpec, Network, Normalization, store


def needs_teacher(config: ConfigDict) -> bool:
    """Whether the method of `config` learns from a trained network, `config.teacher`."""
    frozen = config.method == "hssakd_teacher" and config.hssakd.freeze_backbone
    return frozen or config.method in TAUGHT


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
    if config.dtype not in DTYPES:
        raise UserError(f"config.dtype={config.dtype!r} is unknown; use {joined(DTYPES)}")
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
    teacher: Network | None = None,
    images: InputSpec | None = None,
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
      images: that the networks see; a teacher that was trained with another normalization sees
        them in its own. None: it sees them as the networks do.
      compactions: which filters are left of networks that were made smaller, by 'network_i', whose
        weights come from elsewhere; None for networks as they start, see `config.start`.

    Raises:
      UserError: unknown method, network or dtype, or settings that the method cannot run with.
    """
    if config.method not in BUILDERS:
        longer = [name for name in BUILDERS if config.method and name.startswith(config.method)]
        near = longer or difflib.get_close_matches(config.method, BUILDERS, n=3, cutoff=0.3)
        known = joined(near or BUILDERS)
        raise UserError(f"config.method={config.method!r} is unknown; did you mean {known}?")
    start = _start(config, num_classes) if compactions is None else None
    compactions = _left(start) if compactions is None else compactions
    members = networks(config, num_classes, axis_name=axis_name, compactions=compactions)
    stages = members[0].num_stages
    if not 0 <= config.shared_stages <= stages:
        raise UserError(
            f"config.shared_stages={config.shared_stages}: {config.networks[0]} has {stages} "
            "stages; share none (0) or up to all of them"
        )
    cohort = models.Cohort(members, shared_stages=config.shared_stages)
    method = BUILDERS[config.method](
        Parts(config, cohort, axis_name, train_labels, teacher, images)
    )
    if start is not None:
        method = started(method, start, config.networks)
    return _pruned(method, config, members, train_labels)


def starting_compactions(config: ConfigDict, num_classes: int) -> dict[str, models.Compaction]:
    """Which filters are left of the networks before training, by 'network_i'.

    That is what `config.start` holds of its network; all of them of any other.
    """
    return _left(_start(config, num_classes))


def starting_normalization(config: ConfigDict) -> Normalization | None:
    """What the images of the trained network were normalized with that a run starts from.

    That is `config.start`, or a frozen backbone, `config.teacher`; None where there is neither, or
    its normalization is not known.

    Raises:
      UserError: the network cannot be read.
    """
    frozen = config.method == "hssakd_teacher" and config.hssakd.freeze_backbone
    name = "teacher" if frozen else "start"
    if not config[name].checkpoint:
        return None
    return store.spec_from_config(config[name], f"config.{name}").input.normalization


def _left(start: Network | None) -> dict[str, models.Compaction]:
    whole = start is None or start.spec.compaction is None
    return {} if whole else {"network_0": start.spec.compaction}


def _start(config: ConfigDict, num_classes: int) -> Network | None:
    """The network that `config.start` names, if any."""
    if not config.start.checkpoint:
        return None
    return store.from_config(config.start, "config.start", num_classes)


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
