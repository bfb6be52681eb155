"""Detection of zero filters."""

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
    """Masks of filter groups from their zero filters.

    Args:
      params: nested dicts of arrays.
      groups: of the network with these parameters.

    Returns:
      `{name of the group: bool [C]}`, False where all arrays that the group masks are zero.
    """
    arrays = leaves(params)
    return {
        group.name: np.any([_nonzero(np.asarray(arrays[path])) for path in group.leaves], axis=0)
        for group in groups
    }


def zero_filters(link: Link, arrays: Arrays) -> np.ndarray:
    """Whether the channels of a link's filters are constant: `bool [C]`."""
    conv = link.convs[-1]
    zero = ~_nonzero(arrays[f"{conv}/kernel"])
    if not link.norms[-1] and f"{conv}/bias" in arrays:
        zero &= arrays[f"{conv}/bias"] == 0
    return zero


def pruned_filters(
    network: StagedNetwork, arrays: Arrays, masks: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The filters that masks prune: `{convolution: bool [C]}`, True for pruned ones.

    Raises:
      UserError: a mask of another network, or a filter that is pruned but not zero.
    """
    summands = {group.name: group.convs for group in network.residual_groups()}
    pruned: dict[str, np.ndarray] = {}
    for name, mask in masks.items():
        pruned_by_mask = ~np.asarray(mask, bool)
        for conv in summands.get(name, (name.removesuffix("/kernel"),)):
            kernel = arrays.get(f"{conv}/kernel")
            if kernel is None or pruned_by_mask.shape != kernel.shape[-1:]:
                layer = "no such layer" if kernel is None else f"{kernel.shape[-1]} filters there"
                raise UserError(
                    f"the mask {name!r} of shape {pruned_by_mask.shape} is of another network: "
                    f"{layer}"
                )
            nonzero = pruned_by_mask & _nonzero(kernel)
            if nonzero.any():
                raise UserError(
                    f"filter {np.flatnonzero(nonzero)[0]} of {conv!r} is pruned by its mask but "
                    "not zero: apply the mask first, or remove hard-pruned filters only"
                )
            pruned[conv] = pruned.get(conv, False) | pruned_by_mask
    return pruned


def _nonzero(array: np.ndarray) -> np.ndarray:
    """Whether filters have any nonzero weight: `[..., C] -> bool [C]`."""
    return np.any(array != 0, axis=tuple(range(array.ndim - 1)))
