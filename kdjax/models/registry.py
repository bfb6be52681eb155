"""Networks by name, and the one grammar of names: NETWORK, NETWORK_FORM or NETWORK_FORMnumber.

A form is what a paper adds to a network, branches in most cases. 'resnet20_aux6' is the network
'resnet20' in HSAKD's form, with six transformations.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.registry import Registry


class NetworkEntry(NamedTuple):
    """A registered network.

    Attributes:
      constructor: `(num_classes=, dtype=, axis_name=) -> module`.
      torch_names: what PyTorch calls its modules, see `register`; None: its family's file in
        `kdjax.interop.names` knows, or nobody does.
    """

    constructor: Callable[..., nn.Module]
    torch_names: Sequence[tuple[str, Any]] | None = None


class FormEntry(NamedTuple):
    """A registered form.

    Attributes:
      make: `(network, **option) -> module`.
      suffix: in names.
      option: keyword of `make` that is a number in names; '' where there is none.
      default: the number that names leave out.
      more: further keywords of `make` that are numbers, with their defaults; names do not have
        them, descriptions do.
      classifies: whether the network keeps its own classifier. Otherwise another head stands in
        its place, for any number of channels.
    """

    make: Callable[..., nn.Module]
    suffix: str
    option: str = ""
    default: int = 1
    more: Mapping[str, int] = {}
    classifies: bool = True


class Form(NamedTuple):
    """A form: the branches or modules that are added to a network.

    Attributes:
      name: of a registered form; '' adds nothing.
      options: pairs (keyword, number), such as ('transformations', 6).
    """

    name: str = ""
    options: tuple[tuple[str, int], ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether the network keeps its own classifier; see `FormEntry`."""
        return not self.name or FORMS[self.name].classifies

    def of(self, network: nn.Module) -> nn.Module:
        """The network in this form.

        Raises:
          UserError: the form is not registered, or does not fit the network.
        """
        return FORMS[self.name].make(network, **dict(self.options)) if self.name else network


PLAIN = Form()


class NetworkName(NamedTuple):
    """A network's name in its parts.

    Attributes:
      network: a registered network.
      form: of the network.
    """

    network: str
    form: Form = PLAIN

    def __str__(self) -> str:
        """The name from which `parse` returns these parts."""
        if not self.form.name:
            return self.network
        entry = FORMS[self.form.name]
        number = dict(self.form.options).get(entry.option, entry.default)
        return f"{self.network}_{entry.suffix}{'' if number == entry.default else number}"


NETWORKS: Registry[NetworkEntry] = Registry("network", "network")
FORMS: Registry[FormEntry] = Registry("form", "form")


def register(
    name: str,
    constructor: Callable[..., nn.Module],
    *,
    torch_names: Sequence[tuple[str, Any]] | None = None,
    **fields: Any,
) -> None:
    """Registers a network, for configs, `create` and everything that reads trained networks.

    Args:
      name: for `create`.
      constructor: a class or function that is called with `num_classes`, `dtype`, `axis_name` and
        `fields`. It returns a `StagedNetwork`.
      torch_names: pairs (pattern, replacement) from the paths of the network's modules, such as
        'stage1_block0/conv1', to the names of PyTorch's modules. The first pattern that matches
        all of a path counts; replacements are templates of `re.Match.expand`, or functions of the
        match. They are needed to import or export state dicts, and for nothing else.
      **fields: further arguments of `constructor`.

    Raises:
      ValueError: the name is registered already, by another definition.
    """
    entry = NetworkEntry(functools.partial(constructor, **fields), torch_names)
    NETWORKS.add(name, entry, constructor)


def register_form(
    name: str,
    make: Callable[..., nn.Module],
    *,
    suffix: str = "",
    option: str = "",
    default: int = 1,
    more: Mapping[str, int] | None = None,
    classifies: bool = True,
) -> None:
    """Registers a form, so that `create('NETWORK_suffix')` is `make(network)`, for every network.

    Args:
      name: of the form.
      make: `(network, **option) -> module`, which has the network's variables under 'backbone' and,
        if it can be pruned, a method `network_parts` as that of `kdjax.models.Branched`.
      suffix: in names, letters only; '' is the form's name.
      option: keyword of `make` for the number behind the suffix, if one may stand there.
      default: the number that names leave out.
      more: further keywords of `make` that are numbers, with their defaults.
      classifies: whether the network keeps its own classifier.

    Raises:
      ValueError: the name or the suffix is registered already, or the suffix has other characters
        than small letters.
    """
    suffix = suffix or name
    if not re.fullmatch("[a-z]+", suffix):
        raise ValueError(f"the suffix {suffix!r} of form {name!r} may have small letters only")
    if any(entry.suffix == suffix for other, entry in FORMS.items() if other != name):
        raise ValueError(f"the suffix {suffix!r} is registered already")
    entry = FormEntry(make, suffix, option, default, dict(more or {}), classifies)
    FORMS.add(name, entry, make)


def names() -> list[str]:
    """The names of all networks without their forms, sorted."""
    return sorted(NETWORKS)


def forms() -> list[str]:
    """The suffixes of all forms, sorted: `create('resnet20_aux', ...)`."""
    return sorted(entry.suffix for entry in FORMS.values())


def parse(name: str) -> NetworkName:
    """A network's name in its parts.

    Raises:
      UserError: no network has this name.
    """
    if name in NETWORKS:
        return NetworkName(name)
    match = re.fullmatch(r"(.+)_([a-z]+)([1-9]\d{0,3})?", name)
    if match and match[1] in NETWORKS:
        for form, entry in FORMS.items():
            if entry.suffix != match[2] or (match[3] and not entry.option):
                continue
            number = int(match[3] or entry.default)
            options = ((entry.option, number),) * bool(entry.option)
            return NetworkName(match[1], Form(form, (*options, *entry.more.items())))
    near = NETWORKS.nearest(name.lower())
    raise UserError(f"unknown network {name!r}; the nearest names are {', '.join(near)}")


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
    parts = parse(name)
    constructor = NETWORKS[parts.network].constructor
    network = constructor(num_classes=num_classes, dtype=dtype, axis_name=axis_name)
    return parts.form.of(network)


def torch_names(network: nn.Module) -> Sequence[tuple[str, Any]] | None:
    """The names that PyTorch's modules were registered with for networks of this class, or None."""
    for entry in NETWORKS.values():
        if entry.torch_names is None:
            continue
        if type(entry.constructor(num_classes=network.num_classes)) is type(network):
            return entry.torch_names
    return None
