"""The filters of kdjax's networks that are to be pruned together."""

from __future__ import annotations

from collections.abc import Iterable

from kdjax.errors import UserError
from kdjax.models import StagedNetwork
from kdjax.pruning.groups import FilterGroup


def filter_groups(
    network: StagedNetwork,
    *,
    norms: bool = False,
    residual: bool = False,
    projections: bool = False,
) -> list[FilterGroup]:
    """The filters of a network that are to be pruned together.

    A convolution and the depthwise ones behind it are one group, every other convolution is one by
    itself. (HCGNet's gates have no filters of their own to prune.) With a network that was made
    smaller (`kdjax.compaction.remove_filters`) the groups know how many of their filters are gone.

    Args:
      network: the network; paths are those of its own parameters.
      norms: whether BatchNorm's scale and bias behind a filter are zeroed with it once it is
        pruned for good: when it is hard, or after the last epoch. Its channel is then exactly zero,
        also in training, and can be removed there. What its consumers make of it is zeroed, too
        (but in grouped convolutions), so that filters that are chosen later do not depend on
        whether it has been removed. The papers leave BatchNorm alone.
      residual: whether all convolutions that write into one residual sum are one group, so that
        its channels can be removed. The papers prune them one by one.
      projections: whether 1x1 convolutions of residual shortcuts are pruned where they are not
        part of a residual sum's group. The papers leave them out.

    Raises:
      UserError: `residual` for a network without such sums, or a network that does not say how its
        filters are linked.
    """
    links = network.filter_links()
    if not links:
        raise UserError(
            f"{type(network).__name__} does not say how its filters are linked: give it the "
            "method filter_links, or name the layers by patterns (kdjax.pruning.by_pattern)"
        )
    summands = network.residual_groups() if residual else ()
    sums = {conv: group for group in summands for conv in group.convs}
    if residual and not sums:
        raise UserError(
            f"residual=True: {type(network).__name__} has no residual sums of one width "
            "(shortcut='padding' mixes widths); prune the convolutions one by one"
        )
    grouped = {link.name for link in links if link.groups > 1}
    groups: dict[str, FilterGroup] = {}
    for link in links:
        owner = sums.get(link.name)
        if owner is None and link.projection and not projections:
            continue
        name = link.name if owner is None else owner.name
        group = groups.get(name, FilterGroup(name, (), ()))
        between = link.norms if owner is None else (*link.norms, *owner.norms)
        kernels = tuple(f"{conv}/kernel" for conv in link.convs)
        affine = [f"{norm}/{leaf}" for norm in between if norm for leaf in ("scale", "bias")]
        settled = dict.fromkeys((*group.settled, *(affine if norms else ())))
        consumers = link.consumers if owner is None else (*link.consumers, *owner.consumers)
        consumers = [f"{layer}/kernel" for layer in consumers if norms and layer not in grouped]
        groups[name] = group._replace(
            scored=group.scored + kernels,
            masked=group.masked + kernels,
            settled=tuple(settled),
            consumers=tuple(dict.fromkeys((*group.consumers, *consumers))),
        )
    return with_removed(list(groups.values()), network)


def with_removed(groups: Iterable[FilterGroup], network: StagedNetwork) -> list[FilterGroup]:
    """Groups that know how many of their filters `network` has lost, by their names.

    `filter_groups` returns such; those of `official` and `by_pattern` need it.
    """
    masks = {} if network.compaction is None else dict(network.compaction.masks)
    for each in network.residual_groups():
        if each.convs[0] in masks:
            masks[each.name] = masks[each.convs[0]]
    gone = {name: int((~mask).sum()) for name, mask in masks.items()}
    return [group._replace(removed=gone.get(group.name, 0)) for group in groups]
