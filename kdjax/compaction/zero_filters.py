"""Filters that are zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.compaction.cutting import Arrays
from kdjax.errors import UserError
from kdjax.models import StagedNetwork
from kdjax.models.filters import Link
from kdjax.pruning.groups import FilterGroup, Params
from kdjax.tree import leaves


def masks_of_zeros(params: Params, groups: Sequence[FilterGroup]) -> dict[str, np.ndarray]:
    """`{name of the group: bool [C]}`, False where everything that the group masks is zero."""
    found = leaves(params)
    return {
        group.name: np.any([_per_filter(np.asarray(found[path])) for path in group.leaves], axis=0)
        for group in groups
    }


def zero_filters(link: Link, arrays: Arrays) -> np.ndarray:
    """`bool [C]`: the filters of a link whose channels are constants."""
    conv = link.convs[-1]
    zero = ~_per_filter(arrays[f"{conv}/kernel"])
    if not link.norms[-1] and f"{conv}/bias" in arrays:
        zero &= arrays[f"{conv}/bias"] == 0
    return zero


def pruned_filters(
    network: StagedNetwork, arrays: Arrays, masks: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """`{convolution: bool [C]}`, True for what the masks prune, which must be zero."""
    summands = {each.name: each.convs for each in network.residual_groups()}
    pruned: dict[str, np.ndarray] = {}
    for name, mask in masks.items():
        gone = ~np.asarray(mask, bool)
        for conv in summands.get(name, (name.removesuffix("/kernel"),)):
            kernel = arrays.get(f"{conv}/kernel")
            if kernel is None or gone.shape != kernel.shape[-1:]:
                found = "no such layer" if kernel is None else f"{kernel.shape[-1]} filters there"
                raise UserError(
                    f"the mask {name!r} of shape {gone.shape} is of another network: {found}"
                )
            alive = gone & _per_filter(kernel)
            if alive.any():
                raise UserError(
                    f"filter {np.flatnonzero(alive)[0]} of {conv!r} is pruned by its mask but not "
                    "zero: apply the mask first, or remove hard-pruned filters only"
                )
            pruned[conv] = pruned.get(conv, False) | gone
    return pruned


def _per_filter(array: np.ndarray) -> np.ndarray:
    """`[..., C] -> bool [C]`: whether a filter has anything but zeros."""
    return np.any(array != 0, axis=tuple(range(array.ndim - 1)))
