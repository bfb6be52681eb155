"""Which filters of a method's parameters `config.pruning` means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax import compaction, pruning
from kdjax.errors import UserError
from kdjax.methods.pruning_settings import Pruning
from kdjax.models import Part, StagedNetwork
from kdjax.pruning.groups import FilterGroup, Params
from kdjax.tree import leaves, matching, nested


def selection(settings: Pruning, parts: Mapping[str, Part]) -> pruning.Selection:
    """The filters of a method's networks, with those of their branches, that are pruned.

    Args:
      settings: `config.pruning`.
      parts: `Method.parts`.
    """
    norms = settings.filters != "conv"
    options = {"norms": norms, "residual": settings.filters == "coupled"}

    def by_pattern(params: Params) -> list[FilterGroup]:
        words = ("conv", "bn") if norms else None
        inside = nested(_below(leaves(params), parts))
        return pruning.by_pattern(inside, settings.patterns, skip=settings.skip, norms=words)

    def of_networks(params: Params) -> list[FilterGroup]:
        arrays, groups = leaves(params), list[FilterGroup]()
        for path, part in parts.items():
            part_groups = _groups(part.network, settings.filters, options)
            groups += _present(part_groups, path, arrays, whole=part.shared)
        return _without(groups, settings.skip) if settings.skip else groups

    return by_pattern if settings.patterns else of_networks


def _below(arrays: dict[str, Any], paths: Mapping[str, Part]) -> dict[str, Any]:
    """The arrays that lie below one of the paths."""
    prefixes = tuple(f"{path}/" for path in paths)
    return {path: array for path, array in arrays.items() if path.startswith(prefixes)}


def _groups(network: StagedNetwork, filters: str, options: dict[str, Any]) -> list[FilterGroup]:
    try:
        return compaction.filter_groups(network, **options)
    except UserError as error:
        raise UserError(f"config.pruning.filters={filters!r}: {error}") from error


def _present(
    groups: Sequence[FilterGroup], prefix: str, arrays: dict[str, Any], *, whole: bool
) -> list[FilterGroup]:
    """The groups of a part whose arrays are among the parameters, by their paths there.

    Args:
      groups: of the part's network.
      prefix: path of the part.
      arrays: all parameters.
      whole: whether a group with some of its layers missing is refused.

    Raises:
      UserError: some layers of a group are missing that may not be.
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
