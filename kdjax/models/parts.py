"""Which networks a module is made of, and where their variables are among its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import flax.linen as nn

from kdjax.models.staged import StagedNetwork


class Part(NamedTuple):
    """A network, or some of its stages, inside a module.

    Attributes:
      network: the network whose stages are run.
      shared: whether these are early stages only, from which several networks go on.
    """

    network: StagedNetwork
    shared: bool = False


# Paths of the parts' variables among those of a module, '/'-joined.
Parts = dict[str, Part]


def network_parts(module: nn.Module) -> Parts:
    """The networks that a module is made of; what else it has, such as heads, is no part.

    A part may lack layers of its network: those of stages that it does not run.

    Args:
      module: a `StagedNetwork`, or a module whose method `network_parts` names its parts. A module
        without this method has none.
    """
    if isinstance(module, StagedNetwork):
        return {"": Part(module)}
    name_parts: Callable[[], Parts] | None = getattr(module, "network_parts", None)
    return name_parts() if name_parts is not None else {}


def parts_below(modules: Iterable[tuple[str, nn.Module]]) -> Parts:
    """The parts of submodules, given as pairs (name, module)."""
    return {
        f"{name}/{path}".removesuffix("/"): part
        for name, module in modules
        for path, part in network_parts(module).items()
    }
