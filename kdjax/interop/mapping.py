"""What official repositories call the modules of a network, by dialect."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.errors import UserError
from kdjax.interop.names import FAMILIES, Family, Rules, rename
from kdjax.interop.state_dict_entries import Naming
from kdjax.models import Branched, Cohort, StagedNetwork
from kdjax.models.cohort import one_architecture
from kdjax.models.registry import torch_names


@functools.singledispatch
def namings(module: nn.Module) -> dict[str, Naming]:
    """The namings of a module's layers in official repositories, by dialect.

    The first dialect is the default of exports.

    Raises:
      UserError: the module has no counterpart in PyTorch.
    """
    raise UserError(f"{type(module).__name__} has no counterpart in PyTorch that kdjax knows")


def family(network: nn.Module) -> Family:
    """The PyTorch names of a network's family.

    Raises:
      UserError: neither kdjax nor `kdjax.models.register` names its modules.
    """
    if type(network) in FAMILIES:
        return FAMILIES[type(network)]
    rules = torch_names(network)
    if rules is None:
        raise UserError(f"{type(network).__name__} has no counterpart in PyTorch that kdjax knows")
    return Family(plain=lambda network: {"registered": rules})


@namings.register
def _plain(network: StagedNetwork) -> dict[str, Naming]:
    dialects = family(network).plain(network)
    return {name: functools.partial(rename, rules) for name, rules in dialects.items()}


@namings.register
def _branched(module: Branched) -> dict[str, Naming]:
    apart, beside = with_auxiliary(module), _with_heads(module)
    return beside | apart if _is_thin(module) else apart | beside


def with_auxiliary(module: Branched) -> dict[str, Naming]:
    """The namings in which the network is `backbone`, its branches are `auxiliary_classifier`.

    Raises:
      UserError: there is none.
    """
    known = family(module.network)
    if not known.branch:
        raise UserError(
            f"{type(module.network).__name__} with branches has no counterpart in PyTorch that "
            "kdjax knows"
        )
    rules = known.branch(module.network) if callable(known.branch) else known.branch
    plain = namings(module.network)
    if known.branched is not None:
        plain = {known.branched: plain[known.branched]}
    return _with_branches(plain, rules, "backbone.", "auxiliary_classifier.")


def _with_heads(module: Branched) -> dict[str, Naming]:
    """The namings in which branches stand beside the network's layers: those of BYOT and DKS."""
    network, heads = module.network, family(module.network).heads
    last = network.num_stages
    if heads is None or [stage for stage, _ in module.heads] != [last - 2, last - 1]:
        return {}
    beside = _with_branches(namings(network), heads(network), "", "")
    return {f"{dialect}/heads": naming for dialect, naming in beside.items()}


def _with_branches(
    plain: dict[str, Naming], rules: Rules, backbone_prefix: str, branch_prefix: str
) -> dict[str, Naming]:
    """The namings of a network and its branches, from those of the network alone."""

    def naming(backbone: Naming, path: str) -> str:
        owner, _, inner_path = path.partition("/")
        if owner == "backbone":
            return backbone_prefix + backbone(inner_path)
        return branch_prefix + rename(rules, path)

    return {dialect: functools.partial(naming, backbone) for dialect, backbone in plain.items()}


def _is_thin(module: Branched) -> bool:
    """Whether the branches have other numbers of blocks than the network, as BYOT's and DKS's."""
    return all(
        getattr(head, "blocks", None) != getattr(module.network, "blocks", None)
        for _, head in module.heads
    )


_COHORT_PREFIXES = {
    "module_list": lambda index: f"module_list.{index}.",
    "net": lambda index: f"net{index + 1}.",
    "net.module_list": lambda index: f"net{index + 1}.module_list.0.",
}


def _official_form(cohort: Cohort) -> str:
    """The key of `_COHORT_PREFIXES` that the official repository of such a cohort uses."""
    first = cohort.networks[0]
    if isinstance(first, Branched) and len(first.heads) == first.network.num_stages:
        return "net"  # HSAKD: a branch after every stage
    if isinstance(first, Branched) and not one_architecture(cohort.networks):
        return "net.module_list"  # L-MCL
    return "module_list"


@namings.register
def _cohort(cohort: Cohort) -> dict[str, Naming]:
    if cohort.shared_stages:
        return _shared(cohort)
    by_network = [namings(network) for network in cohort.networks]
    # Networks with the same choice of dialects use the same one.
    choices = list(dict.fromkeys(tuple(dialects) for dialects in by_network))

    def naming(prefix: Callable[[int], str], members: list[Naming], path: str) -> str:
        owner, _, inner_path = path.partition("/")
        index = int(owner.removeprefix("network_"))
        return prefix(index) + members[index](inner_path)

    dialects: dict[str, Naming] = {}
    for form in sorted(_COHORT_PREFIXES, key=lambda form: form != _official_form(cohort)):
        for chosen in itertools.product(*choices):
            members = [names[chosen[choices.index(tuple(names))]] for names in by_network]
            dialect = "+".join(chosen if len(set(chosen)) > 1 else chosen[:1])
            prefix = _COHORT_PREFIXES[form]
            dialects[f"{dialect}/{form}"] = functools.partial(naming, prefix, members)
    return dialects


def shared_rules(cohort: nn.Module) -> Rules:
    """The naming rules of a cohort's networks behind their shared trunk.

    Raises:
      UserError: the network's family has none.
    """
    network = cohort.networks[0]
    shared = family(network).shared
    if not shared:
        raise UserError(
            f"{type(network).__name__} with a shared trunk has no counterpart in PyTorch that "
            "kdjax knows"
        )
    return shared(cohort) if callable(shared) else shared


def _shared(cohort: Cohort) -> dict[str, Naming]:
    rules = shared_rules(cohort)

    def naming(trunk: Naming, path: str) -> str:
        owner, _, inner_path = path.partition("/")
        return trunk(inner_path) if owner == "trunk" else rename(rules, path)

    plain = namings(cohort.networks[0])
    return {dialect: functools.partial(naming, trunk) for dialect, trunk in plain.items()}


def extended(namings: Mapping[str, Naming], added: Mapping[str, str]) -> dict[str, Naming]:
    """Namings with added modules.

    Args:
      namings: by dialect.
      added: `{path: PyTorch name}` of further modules, the same in all dialects.
    """

    def naming(inner: Naming, path: str) -> str:
        return added[path] if path in added else inner(path)

    return {dialect: functools.partial(naming, inner) for dialect, inner in namings.items()}


@functools.singledispatch
def unread(module: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """Arrays that the official network holds but never uses, which kdjax therefore lacks.

    Args:
      module: a network.
      names: of all arrays that it has a counterpart of.

    Returns:
      `{name of an array that is never used: one of `names` that has its shape}`.
    """
    del module, names
    return {}


def shapes(module: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Shapes and dtypes of the variables of `module` for images `[H, W, C]`."""
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)
