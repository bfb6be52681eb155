"""Removal of zero filters: a smaller network with the same outputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from kdjax.compaction.cutting import Arrays, Cuts, cuts_between, folded_constants, narrow
from kdjax.compaction.kept_filters import dense_masks, kept_filters, narrow_sums, shifts
from kdjax.compaction.layer_check import check_layers
from kdjax.compaction.zero_filters import pruned_filters, zero_filters
from kdjax.errors import UserError
from kdjax.models import Compaction, StagedNetwork
from kdjax.models.filters import Link
from kdjax.models.narrowing import Narrow, narrow_layers
from kdjax.pruning.groups import Params
from kdjax.tree import leaves


class Removal(NamedTuple):
    """The result of removing filters from a network.

    Attributes:
      network: the same module with a `compaction`.
      variables: its `{'params': ..., 'batch_stats': ...}`.
      cuts: the kept indices of every array that became smaller, for `narrow`.
    """

    network: StagedNetwork
    variables: dict[str, Params]
    cuts: Cuts


def remove_filters(
    network: StagedNetwork,
    variables: Mapping[str, Params],
    masks: Mapping[str, Any] | None = None,
    *,
    drop_norms: bool = False,
    multiple: int = 1,
) -> Removal:
    """Removes pruned filters from a network.

    In evaluation the result has the outputs of the network, up to rounding, for images of every
    size. A filter is removable if its kernel is zero or, where a depthwise convolution follows it,
    if the depthwise kernel is zero. BatchNorm turns its channel into a constant, which the result
    keeps (see `kdjax.models.Compaction`) unless BatchNorm's scale and bias are zero for all removed
    filters; then the result can also replace the network in training (`shrink`).

    A zero filter that is not removable stays. In a grouped convolution all groups with nonzero
    filters keep the same number of filters. Layers that `filter_links` does not name (HCGNet's
    gates) stay as they are. `removal_table` lists the result.

    Args:
      network: dense or compact.
      variables: `{'params': ..., 'batch_stats': ...}`.
      masks: `{name: bool [C]}`, False for the filters to remove, as in `PruningState`; names are
        those of convolutions ('stage1_block0/conv1', as `filter_groups`, `official` and
        `by_pattern` name their groups) or of residual sums. None removes all zero filters.
      drop_norms: whether filters are removed with their BatchNorm, as in the papers: the constants
        are dropped, and outputs change. `recalibrate_batch_norm` adapts the statistics.
      multiple: the number of filters of a layer is rounded up to a multiple of this by keeping
        zero filters, since hardware prefers widths such as multiples of 8. Grouped convolutions are
        not rounded.

    Returns:
      The smaller network, its variables and the cuts that lead to it.

    Raises:
      UserError: masks or variables of another network, a filter that is pruned by its mask but not
        zero, a convolution that would have no filter, a compact network that would need constants,
        a layer that does not take its width from the network, or `multiple` below 1.
    """
    if multiple < 1:
        raise UserError(f"multiple={multiple}: must be at least 1")
    arrays = {
        path: np.asarray(x) for tree in variables.values() for path, x in leaves(tree).items()
    }
    links = _links(network, arrays)
    zero = {link.name: zero_filters(link, arrays) for link in links}
    if masks is not None:
        pruned = pruned_filters(network, arrays, masks)
        for link in links:
            by_conv = [pruned.get(conv, np.False_) for conv in link.convs]
            zero[link.name] &= functools.reduce(np.logical_or, by_conv)
    kept = kept_filters(network, links, zero, multiple)
    smaller = [link for link in links if not kept[link.name].all()]
    needs_constants = not drop_norms and any(
        shifts((link.norms[-1],), ~kept[link.name], arrays) for link in smaller
    )
    if network.compaction is not None and (needs_constants or network.compaction.constants):
        raise UserError(
            "a network that is compact already cannot lose channels that are constants: remove "
            "them from the dense network all at once, or prune BatchNorm with the filters"
        )
    masks_after = dense_masks(network, links, kept)
    pruned_names = None if masks is None else set(masks)
    sums: tuple[str, ...] = ()
    if not needs_constants:
        sums = narrow_sums(network, masks_after, arrays, drop_norms, pruned_names)
    compaction = Compaction.of(masks_after, sums, needs_constants)
    result = network.clone(compaction=compaction)
    if network.compaction is None:
        check_layers(network, result, arrays)
    cuts = cuts_between(network, result, arrays)
    variables = {name: narrow(tree, cuts) for name, tree in variables.items()}
    if needs_constants:
        flat = traverse_util.flatten_dict(variables["params"], sep="/")
        flat |= folded_constants(result, smaller, arrays)
        variables["params"] = traverse_util.unflatten_dict(flat, sep="/")
    return Removal(result, variables, cuts)


def shrink(
    network: StagedNetwork,
    variables: Mapping[str, Params],
    masks: Mapping[str, Any] | None = None,
    *,
    multiple: int = 1,
) -> Removal:
    """Removes pruned filters from a network whose training goes on.

    The result has the outputs of the network in training, too. `narrow` cuts the optimizer's state
    with its `cuts`.

    Args:
      network: as of `remove_filters`.
      variables: as of `remove_filters`.
      masks: as of `remove_filters`; filters that soft pruning may restore must not be removed.
      multiple: as of `remove_filters`.

    Returns:
      As `remove_filters`.

    Raises:
      UserError: as `remove_filters`, or BatchNorm's scale or bias of a removed filter is not zero.
    """
    result = remove_filters(network, variables, masks, multiple=multiple)
    compaction = result.network.compaction
    if compaction is not None and compaction.constants:
        raise UserError(
            "a network can only shrink in training where BatchNorm's scale and bias are pruned "
            "with the filter: use filter groups with norms"
        )
    return result


def removal_table(network: StagedNetwork, variables: Mapping[str, Params]) -> str:
    """A text table of the prunable convolutions with their numbers of filters.

    Args:
      network: dense or compact.
      variables: its variables.

    Returns:
      One line per convolution: filters of the dense network, filters left, and 'wide' where the
      output is scattered back to the dense width.

    Raises:
      UserError: a network without `filter_links`, or variables of another network.
    """
    arrays = leaves(variables["params"])
    plan = narrow_layers(network)
    widened = {layer for layer, narrow in plan.items() if narrow.widen}
    rows = []
    for link in _links(network, arrays):
        for conv in link.convs:
            narrow_layer = plan.get(conv, Narrow())
            remaining = arrays[f"{conv}/kernel"].shape[-1]
            filters = remaining if narrow_layer.filters is None else len(narrow_layer.filters)
            wide = "wide" if {conv, link.last} & widened else ""
            rows.append((conv, filters, remaining, wide))
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows), ""))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'layer':{width}}  filters  left"]
    lines += [f"{name:{width}}  {c:7d}  {n:4d}  {wide}".rstrip() for name, c, n, wide in rows]
    return "\n".join(lines)


def _links(network: StagedNetwork, arrays: Arrays) -> tuple[Link, ...]:
    links = network.filter_links()
    if not links:
        raise UserError(f"{type(network).__name__} does not say how its filters are linked")
    layers = [layer for link in links for layer in (*link.convs, *link.consumers)]
    absent = [layer for layer in layers if f"{layer}/kernel" not in arrays]
    if absent:
        raise UserError(
            f"these are not the variables of this {type(network).__name__}: {absent[0]} is missing"
        )
    return links
