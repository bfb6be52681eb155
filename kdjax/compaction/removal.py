"""Removal: a network with zero filters made into a smaller one that computes the same."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from kdjax.compaction.cutting import Arrays, Cuts, cuts_between, folded_constants, narrow
from kdjax.compaction.zero_filters import pruned_filters, zero_filters
from kdjax.errors import UserError
from kdjax.models import Compaction, StagedNetwork
from kdjax.models.filters import Link, ResidualGroup
from kdjax.models.narrowing import Narrow, narrow_layers
from kdjax.pruning.groups import Params
from kdjax.tree import leaves


class Removal(NamedTuple):
    """A smaller network.

    Attributes:
      network: the same module, with a `compaction`.
      variables: its `{'params': ..., 'batch_stats': ...}`.
      cuts: what is left of every array that became smaller, for `narrow`.
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
    """Takes pruned filters out of a network.

    In evaluation the result computes what the network computes, up to rounding, for images of every
    size. A filter can go if its kernel is zero; where a depthwise convolution is behind it, if that
    one's is. What BatchNorm makes of zero is a constant. It is kept as such (see
    `kdjax.models.Compaction`), unless BatchNorm's scale and bias are zero for all filters that go:
    then the result can also be trained on in place of the network (`shrink`).

    A zero filter that cannot go stays. In a grouped convolution every group keeps as many filters
    as the one that keeps the most, but for groups of zero filters only; layers that
    `filter_links` does not name (HCGNet's gates) stay as they are. `removal_table` says what went.

    Args:
      network: dense or compact.
      variables: `{'params': ..., 'batch_stats': ...}`.
      masks: `{name: bool [C]}`, False for the filters that go, as `PruningState` has them; names
        are those of convolutions ('stage1_block0/conv1', which is what `filter_groups`, `official`
        and `by_pattern` call their groups) or of residual sums. None: all zero filters go.
      drop_norms: whether filters go together with their BatchNorm, as in the papers: the constants
        are dropped, and outputs change. `recalibrate_batch_norm` adapts what follows.
      multiple: what numbers of filters are rounded up to multiples of, by zero filters that stay:
        processors are made for widths such as 8 or 16, and may take longer for 45 channels than
        for 64. Not in grouped convolutions.

    Raises:
      UserError: masks or variables of another network, a filter that is pruned by its mask but not
        zero, a convolution without any filter left, a compact network that would need constants,
        or `multiple` below 1.
    """
    if multiple < 1:
        raise UserError(f"multiple={multiple} is not the width of anything; use 1 or more")
    arrays = {
        path: np.asarray(x) for tree in variables.values() for path, x in leaves(tree).items()
    }
    links = _links(network, arrays)
    zero = {link.name: zero_filters(link, arrays) for link in links}
    if masks is not None:
        pruned = pruned_filters(network, arrays, masks)
        for link in links:
            of_convs = [pruned.get(conv, np.False_) for conv in link.convs]
            zero[link.name] &= functools.reduce(np.logical_or, of_convs)
    left = _left(network, links, zero, multiple)
    smaller = [link for link in links if not left[link.name].all()]
    needs_constants = not drop_norms and any(
        _shifts((link.norms[-1],), ~left[link.name], arrays) for link in smaller
    )
    if network.compaction is not None and (needs_constants or network.compaction.constants):
        raise UserError(
            "a network that is compact already cannot lose channels that are constants: remove "
            "them from the dense network all at once, or prune BatchNorm with the filters"
        )
    masks_after = _dense_masks(network, links, left)
    chosen = None if masks is None else set(masks)
    sums = ()
    if not needs_constants:
        sums = _narrow_sums(network, masks_after, arrays, drop_norms, chosen)
    compaction = Compaction.of(masks_after, sums, needs_constants)
    result = network.clone(compaction=compaction)
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
    """`remove_filters` for a network that is trained on: it must compute the same in training, too.

    `narrow` makes the optimizer's state fit. Filters that are still to come back (of soft pruning)
    must not be in `masks`.

    Raises:
      UserError: as `remove_filters`, or BatchNorm's scale and bias are not zero where filters go.
    """
    result = remove_filters(network, variables, masks, multiple=multiple)
    if result.network.compaction.constants:
        raise UserError(
            "a network can only shrink in training where BatchNorm's scale and bias are pruned "
            "with the filter: use filter groups with norms"
        )
    return result


def removal_table(network: StagedNetwork, variables: Mapping[str, Params]) -> str:
    """A text table of the convolutions that may be pruned: their filters, and those left.

    'wide' are those whose channels are put back to full width behind them.
    """
    arrays = leaves(variables["params"])
    plan = narrow_layers(network)
    widened = {layer for layer, narrow in plan.items() if narrow.widen}
    rows = []
    for link in _links(network, arrays):
        for conv in link.convs:
            narrow_layer = plan.get(conv, Narrow())
            left = arrays[f"{conv}/kernel"].shape[-1]
            filters = left if narrow_layer.filters is None else len(narrow_layer.filters)
            wide = "wide" if {conv, link.last} & widened else ""
            rows.append((conv, filters, left, wide))
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


def _left(
    network: StagedNetwork, links: Sequence[Link], gone: Mapping[str, np.ndarray], multiple: int
) -> dict[str, np.ndarray]:
    """`{link: bool}` over the filters that `network` has: those that stay."""
    left = {link.name: ~gone[link.name] for link in links}
    for link in links:
        if not left[link.name].any():
            raise UserError(f"no filter of {link.name!r} is left: prune fewer")
        if link.groups > 1:
            left[link.name] = _even(left[link.name], _groups_of(link, network))
        else:
            _restore(left[link.name], -left[link.name].sum() % multiple)
    for each in network.residual_groups():
        if network.compaction is not None and each.name in network.compaction.sums:
            union = np.any([left[conv] for conv in each.convs], axis=0)
            left |= dict.fromkeys(each.convs, union)  # a narrow sum cannot become wide again
    return left


def _groups_of(link: Link, network: StagedNetwork) -> int:
    """The number of groups that a grouped convolution has in `network`."""
    known = {} if network.compaction is None else network.compaction.masks
    if link.name not in known:
        return link.groups
    return int(known[link.name].reshape(link.groups, -1).any(1).sum())


def _even(left: np.ndarray, groups: int) -> np.ndarray:
    """More filters left, so that groups with any have equally many."""
    rows = left.reshape(groups, -1).copy()
    most = rows.sum(1).max()
    for row in rows:
        if row.any():
            _restore(row, most - row.sum())
    return rows.ravel()


def _restore(left: np.ndarray, count: int) -> None:
    """Up to `count` more filters left, the first ones."""
    left[np.flatnonzero(~left)[:count]] = True


def _dense_masks(
    network: StagedNetwork, links: Sequence[Link], left: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`left` in the filters of the dense network."""
    known = {} if network.compaction is None else network.compaction.masks
    masks = {}
    for link in links:
        mask = known.get(link.name, np.ones(len(left[link.name]), bool)).copy()
        mask[mask] = left[link.name]
        masks[link.name] = mask
    return masks


def _narrow_sums(
    network: StagedNetwork,
    masks: Mapping[str, np.ndarray],
    arrays: Arrays,
    drop_norms: bool,
    chosen: set[str] | None,
) -> tuple[str, ...]:
    """The residual sums that lose channels: all summands lack the same ones, which are zero.

    Summands that were pruned one by one may do so by chance. Where `chosen` says what was pruned,
    their sum stays as it is: who asked for them expects maps of full width.
    """
    narrow_before = () if network.compaction is None else network.compaction.sums

    def loses(each: ResidualGroup) -> bool:
        if each.name in narrow_before:
            return True
        if chosen is not None and each.name not in chosen:
            return False
        mask, *others = (masks[conv] for conv in each.convs)
        equal = all(np.array_equal(mask, other) for other in others)
        return equal and not mask.all() and (drop_norms or not _shifts(each.norms, ~mask, arrays))

    return tuple(each.name for each in network.residual_groups() if loses(each))


def _shifts(norms: Sequence[str], gone: np.ndarray, arrays: Arrays) -> bool:
    """Whether a BatchNorm makes anything but zero of a channel that is gone."""
    affine = [arrays[f"{norm}/{leaf}"] for norm in norms if norm for leaf in ("scale", "bias")]
    return any(bool(array[gone].any()) for array in affine)
