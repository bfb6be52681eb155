"""Which filters a removal keeps, and which residual sums it makes narrower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdjax.compaction.cutting import Arrays
from kdjax.errors import UserError
from kdjax.models import StagedNetwork
from kdjax.models.filters import Link, ResidualGroup


def kept_filters(
    network: StagedNetwork, links: Sequence[Link], zero: Mapping[str, np.ndarray], multiple: int
) -> dict[str, np.ndarray]:
    """Which of the network's filters are kept: `{link: bool [filters]}`.

    Args:
      network: dense or compact.
      links: of the network.
      zero: the removable filters of every link, `bool [filters]`.
      multiple: as of `kdjax.compaction.remove_filters`.

    Raises:
      UserError: a convolution would have no filter.
    """
    kept = {link.name: ~zero[link.name] for link in links}
    for link in links:
        if not kept[link.name].any():
            raise UserError(f"no filter of {link.name!r} is left: prune fewer")
        if link.groups > 1:
            kept[link.name] = _equal_groups(kept[link.name], _num_groups(link, network))
        else:
            _restore(kept[link.name], -kept[link.name].sum() % multiple)
    for group in network.residual_groups():
        if network.compaction is not None and group.name in network.compaction.sums:
            union: np.ndarray = np.any([kept[conv] for conv in group.convs], axis=0)
            kept |= dict.fromkeys(group.convs, union)  # a narrow sum cannot become wide again
    return kept


def _num_groups(link: Link, network: StagedNetwork) -> int:
    """The number of groups that a grouped convolution has in `network`."""
    masks = {} if network.compaction is None else network.compaction.masks
    if link.name not in masks:
        return link.groups
    return int(masks[link.name].reshape(link.groups, -1).any(1).sum())


def _equal_groups(kept: np.ndarray, groups: int) -> np.ndarray:
    """Keeps more filters, so that all groups with kept filters have equally many."""
    rows = kept.reshape(groups, -1).copy()
    largest = rows.sum(1).max()
    for row in rows:
        if row.any():
            _restore(row, largest - row.sum())
    return rows.ravel()


def _restore(kept: np.ndarray, count: int) -> None:
    """Keeps the first `count` of the removed filters, in place."""
    kept[np.flatnonzero(~kept)[:count]] = True


def dense_masks(
    network: StagedNetwork, links: Sequence[Link], kept: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The masks of kept filters over the filters of the dense network."""
    before = {} if network.compaction is None else network.compaction.masks
    masks = {}
    for link in links:
        mask = before.get(link.name, np.ones(len(kept[link.name]), bool)).copy()
        mask[mask] = kept[link.name]
        masks[link.name] = mask
    return masks


def narrow_sums(
    network: StagedNetwork,
    masks: Mapping[str, np.ndarray],
    arrays: Arrays,
    drop_norms: bool,
    pruned_names: set[str] | None,
) -> tuple[str, ...]:
    """The residual sums that lose channels: all summands lack the same channels, which are zero.

    Summands that were pruned separately may lack the same channels by chance. With `pruned_names`
    only the sums named there are narrowed, since other feature maps must keep their width.
    """
    narrow_before = () if network.compaction is None else network.compaction.sums

    def is_narrow(group: ResidualGroup) -> bool:
        if group.name in narrow_before:
            return True
        if pruned_names is not None and group.name not in pruned_names:
            return False
        mask, *others = (masks[conv] for conv in group.convs)
        equal = all(np.array_equal(mask, other) for other in others)
        return equal and not mask.all() and (drop_norms or not shifts(group.norms, ~mask, arrays))

    return tuple(group.name for group in network.residual_groups() if is_narrow(group))


def shifts(norms: Sequence[str], removed: np.ndarray, arrays: Arrays) -> bool:
    """Whether a BatchNorm turns a removed channel into anything but zero."""
    affine = [arrays[f"{norm}/{leaf}"] for norm in norms if norm for leaf in ("scale", "bias")]
    return any(bool(array[removed].any()) for array in affine)
