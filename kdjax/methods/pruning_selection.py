"""Which filters of a method's parameters `config.pruning` means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kdjax import compaction, pruning
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.pruning_settings import Pruning
from kdjax.models import StagedNetwork
from kdjax.pruning.groups import FilterGroup
from kdjax.tree import leaves, matching


def selection(settings: Pruning, networks: Sequence[StagedNetwork]) -> pruning.Selection:
    """The filters of a cohort, with those of its branches, that `config.pruning` means.

    Args:
      settings: `config.pruning`.
      networks: of the cohort, plain.
    """
    norms = settings.filters != "conv"
    options = {"norms": norms, "residual": settings.filters == "coupled"}

    def by_pattern(params: base.Params) -> list[FilterGroup]:
        words = ("conv", "bn") if norms else None
        inside = {"cohort": params["cohort"]}
        return pruning.by_pattern(inside, settings.patterns, skip=settings.skip, norms=words)

    def of_networks(params: base.Params) -> list[FilterGroup]:
        arrays, groups = leaves(params), list[FilterGroup]()
        for index, network in enumerate(networks):
            for prefix, part in _parts(params, index, network):
                part_groups = _groups(part, settings.filters, options)
                groups += _present(part_groups, prefix, arrays, whole=part is network)
        return _without(groups, settings.skip) if settings.skip else groups

    return by_pattern if settings.patterns else of_networks


def _groups(network: StagedNetwork, filters: str, options: dict[str, Any]) -> list[FilterGroup]:
    try:
        return compaction.filter_groups(network, **options)
    except UserError as error:
        raise UserError(f"config.pruning.filters={filters!r}: {error}") from error


def _parts(
    params: base.Params, index: int, network: StagedNetwork
) -> Iterator[tuple[str, StagedNetwork]]:
    """Where a network's layers are, and as parts of what: shared, itself, backbone, branches."""
    if index == 0 and "trunk" in params["cohort"]:
        yield "cohort/trunk", network
    inside = params["cohort"].get(f"network_{index}", {})
    branches = [name for name in inside if name.startswith("branch")]
    if "backbone" in inside or not branches:
        yield f"cohort/network_{index}" + "/backbone" * ("backbone" in inside), network
    for name in branches:
        yield f"cohort/network_{index}/{name}", _with_all_layers(network)


def _with_all_layers(network: StagedNetwork) -> StagedNetwork:
    """A network with every layer that a branch of `kdjax.models.branched` may have."""
    fields: dict[str, Any] = {"extra_stages": 1}
    if hasattr(network, "blocks"):
        fields["blocks"] = tuple(max(count, 2) for count in network.blocks)
    return network.clone(**fields)


def _present(
    groups: Sequence[FilterGroup], prefix: str, arrays: dict[str, Any], *, whole: bool
) -> list[FilterGroup]:
    """The groups with a prefix before all paths, as far as their arrays are there.

    Args:
      groups: of a network.
      prefix: of its paths.
      arrays: what is there.
      whole: whether a group may not be there in part only.

    Raises:
      UserError: it is.
    """
    present = []
    for group in groups:
        scored, masked, settled, consumers = (
            tuple(f"{prefix}/{path}" for path in paths if f"{prefix}/{path}" in arrays)
            for paths in (group.scored, group.masked, group.settled, group.consumers)
        )
        if not scored:
            continue
        if whole and (len(scored), len(settled)) != (len(group.scored), len(group.settled)):
            raise UserError(
                f"config.pruning.filters='coupled': some layers of {group.name!r} are shared by "
                "the networks, some are not; use 'conv_bn' or 'conv', or set "
                "config.shared_stages to 0"
            )
        name = f"{prefix}/{group.name}"
        present.append(FilterGroup(name, scored, masked, group.removed, consumers, settled))
    return present


def _without(groups: Sequence[FilterGroup], patterns: Sequence[str]) -> list[FilterGroup]:
    """The groups none of whose kernels matches a pattern.

    Raises:
      ValueError: a pattern that matches none.
    """
    kernels = [path for group in groups for path in group.scored]
    unwanted = set(matching(kernels, patterns, "skip pattern"))
    return [group for group in groups if not unwanted & set(group.scored)]
