"""The trained networks that runs start from, `config.start`, and what is known of them."""

from __future__ import annotations

from ml_collections import ConfigDict

from kdjax.methods.registry import METHODS
from kdjax.models import Compaction
from kdjax.networks import Network, NetworkSpec, Normalization, config_sections


def starting_network(config: ConfigDict, num_classes: int | None) -> Network | None:
    """The trained network that `config.start` names; None where it names none.

    Args:
      config: see `kdjax.config`.
      num_classes: the number of classes that it must have; None for any.

    Raises:
      UserError: it cannot be read, or has another number of classes.
    """
    if not config.start.checkpoint:
        return None
    return config_sections.from_config(config.start, "config.start", num_classes)


def starting_compactions(config: ConfigDict) -> dict[str, Compaction]:
    """The compactions of the networks before training, by 'network_i'.

    Only the network of `config.start` may be compact. Its spec is read, not its weights.

    Raises:
      UserError: the spec cannot be read.
    """
    if not config.start.checkpoint:
        return {}
    return compactions_of(config_sections.spec_from_config(config.start, "config.start"))


def starting_normalization(config: ConfigDict) -> Normalization | None:
    """The input normalization of the trained network that a run starts from.

    The network is that of `config.start` or, for a frozen backbone, of `config.teacher`. None where
    there is neither, or where its normalization is not known.

    Raises:
      UserError: the network cannot be read.
    """
    entry = METHODS[config.method]
    continued = entry.continues_teacher and entry.needs_teacher(config)
    name = "teacher" if continued else "start"
    if not config[name].checkpoint:
        return None
    return config_sections.spec_from_config(config[name], f"config.{name}").input.normalization


def compactions_of(spec: NetworkSpec) -> dict[str, Compaction]:
    """The compaction of a run's only network, by 'network_0'; empty if it is not compact."""
    return {} if spec.compaction is None else {"network_0": spec.compaction}
