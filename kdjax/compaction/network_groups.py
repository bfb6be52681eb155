"""Filter groups of kdjax's networks."""

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
    """The groups of filters of a network that are pruned together.

    A convolution and the depthwise convolutions behind it are one group; every other convolution is
    a group of its own. HCGNet's gates are not pruned. The groups of a compact network
    (`kdjax.compaction.remove_filters`) hold the number of filters that were removed.

    Args:
      network: the network; paths are those of its parameters.
      norms: whether BatchNorm's scale and bias behind a filter are set to zero with it once it is
        pruned permanently: when it is hard, or after the last epoch. Its channel is then exactly
        zero in training, too, and can be removed there. The consumers' weights of this channel are
        set to zero as well (except in grouped convolutions), so that later choices of filters do
        not depend on whether it has been removed. The papers do not prune BatchNorm.
      residual: whether all convolutions that write into one residual sum are one group, so that
        its channels can be removed. The papers prune them separately.
      projections: whether 1x1 convolutions of residual shortcuts are pruned where they are not
        part of a residual sum's group. The papers do not prune them.

    Returns:
      The groups, in the order of the network's layers.

    Raises:
      UserError: `residual` for a network without residual sums of one width, or a network without
        `filter_links`.
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
        norm_layers = link.norms if owner is None else (*link.norms, *owner.norms)
        kernels = tuple(f"{conv}/kernel" for conv in link.convs)
        affine = [f"{norm}/{leaf}" for norm in norm_layers if norm for leaf in ("scale", "bias")]
        settled = dict.fromkeys((*group.settled, *(affine if norms else ())))
        readers = link.consumers if owner is None else (*link.consumers, *owner.consumers)
        consumers = [f"{layer}/kernel" for layer in readers if norms and layer not in grouped]
        groups[name] = group._replace(
            scored=group.scored + kernels,
            masked=group.masked + kernels,
            settled=tuple(settled),
            consumers=tuple(dict.fromkeys((*group.consumers, *consumers))),
        )
    return with_removed(list(groups.values()), network)


def with_removed(groups: Iterable[FilterGroup], network: StagedNetwork) -> list[FilterGroup]:
    """Sets `removed` of groups to the number of their filters that a compact network lacks.

    `filter_groups` does so itself; the groups of `official` and `by_pattern` need it.

    Args:
      groups: with the names of convolutions or residual sums.
      network: dense or compact.
    """
    masks = {} if network.compaction is None else dict(network.compaction.masks)
    for sum_group in network.residual_groups():
        if sum_group.convs[0] in masks:
            masks[sum_group.name] = masks[sum_group.convs[0]]
    removed = {name: int((~mask).sum()) for name, mask in masks.items()}
    return [group._replace(removed=removed.get(group.name, 0)) for group in groups]
