"""The networks that sections of a config name: `config.teacher` and `config.start`."""

from __future__ import annotations

from typing import Any

from kdjax.errors import UserError
from kdjax.networks.network import Network
from kdjax.networks.spec import NetworkSpec
from kdjax.networks.store import CHOICES, load, read_spec


def from_config(section: Any, name: str, num_classes: int | None) -> Network:
    """The network that a section of a config names by its `checkpoint`.

    Args:
      section: `config.teacher` or `config.start`.
      name: of the section, for messages.
      num_classes: of the data; None for any.

    Raises:
      UserError: none is named, it cannot be read, or it has another number of classes.
    """
    _check_section(section, name)
    network = load(
        section.checkpoint, section.network_index, section.version, ema=section.get("ema", False)
    )
    if num_classes is not None and network.spec.num_classes != num_classes:
        raise UserError(
            f"{name}.checkpoint={section.checkpoint}: {network.spec.full_name} has "
            f"{network.spec.num_classes} classes, the data has {num_classes}"
        )
    return network


def spec_from_config(section: Any, name: str) -> NetworkSpec:
    """The spec of the network that `from_config` would read.

    Raises:
      UserError: none is named, or it cannot be read.
    """
    _check_section(section, name)
    return read_spec(section.checkpoint, section.network_index, section.version)


def _check_section(section: Any, name: str) -> None:
    if not section.checkpoint:
        raise UserError(
            f"{name}.checkpoint is missing: name the workdir of a trained network, or import one "
            "from PyTorch (--job=import-torch)"
        )
    if section.version not in CHOICES:
        raise UserError(f"{name}.version={section.version!r} is unknown; use 'best' or 'latest'")
