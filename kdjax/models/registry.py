"""Networks by name."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from kdjax.errors import UserError

_factories: dict[str, Callable[..., nn.Module]] = {}
_forms: dict[str, Callable[[nn.Module], nn.Module]] = {}


def register(name: str, factory: Callable[..., nn.Module], **fields: Any) -> None:
    """Makes `factory(num_classes=, dtype=, axis_name=, **fields)` known as `name`.

    Raises:
      ValueError: the name is taken.
    """
    if name in _factories:
        raise ValueError(f"a network named {name!r} is registered already")
    _factories[name] = functools.partial(factory, **fields)


def register_form(suffix: str, make: Callable[[nn.Module], nn.Module]) -> None:
    """Makes `make(network)` known as `NETWORK_suffix`, for every network.

    Raises:
      ValueError: the suffix is taken.
    """
    if suffix in _forms:
        raise ValueError(f"a form named {suffix!r} is registered already")
    _forms[suffix] = make


def names() -> list[str]:
    """The names of all plain networks, sorted."""
    return sorted(_factories)


def forms() -> list[str]:
    """The suffixes that give a network branches, sorted: `create('resnet20_aux', ...)`."""
    return sorted(_forms)


def create(
    name: str, *, num_classes: int, dtype: Any = jnp.float32, axis_name: str | None = None
) -> nn.Module:
    """A network by name: a module `network(x, train, start, stop) -> Outputs`.

    Args:
      name: one of `names()`; or one with a suffix of `forms()`, which is a network with branches.
      num_classes: number of classes.
      dtype: compute dtype; parameters are float32.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.

    Raises:
      UserError: no network has this name.
    """
    plain, _, form = name.rpartition("_")
    if name not in _factories and plain in _factories and form in _forms:
        options = {"num_classes": num_classes, "dtype": dtype, "axis_name": axis_name}
        return _forms[form](create(plain, **options))
    if name not in _factories:
        near = difflib.get_close_matches(name.lower(), names(), n=4, cutoff=0.5) or names()
        raise UserError(f"unknown network {name!r}; the nearest names are {', '.join(near)}")
    return _factories[name](num_classes=num_classes, dtype=dtype, axis_name=axis_name)
