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


def register(name: str, factory: Callable[..., nn.Module], **fields: Any) -> None:
    """Makes `factory(num_classes=, dtype=, axis_name=, **fields)` known as `name`.

    Raises:
      ValueError: the name is taken.
    """
    if name in _factories:
        raise ValueError(f"a network named {name!r} is registered already")
    _factories[name] = functools.partial(factory, **fields)


def names() -> list[str]:
    """All names that `create` knows, sorted."""
    return sorted(_factories)


def create(
    name: str, *, num_classes: int, dtype: Any = jnp.float32, axis_name: str | None = None
) -> nn.Module:
    """A network by name: a module `network(x, train, start, stop) -> Outputs`.

    Args:
      name: one of `names()`.
      num_classes: number of classes.
      dtype: compute dtype; parameters are float32.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.

    Raises:
      UserError: no network has this name.
    """
    if name not in _factories:
        near = difflib.get_close_matches(name.lower(), names(), n=4, cutoff=0.5) or names()
        raise UserError(f"unknown network {name!r}; the nearest names are {', '.join(near)}")
    return _factories[name](num_classes=num_classes, dtype=dtype, axis_name=axis_name)
