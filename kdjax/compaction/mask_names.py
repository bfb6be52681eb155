"""What the masks of a network's filters are called, and which filters they prune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.compaction.link_table import Links, layer_of
from kdjax.errors import UserError


def kernels_of_masks(links: Links) -> dict[str, list[str]]:
    """The kernels that a mask of each name is of: of a link, of a layer or of a kernel."""
    names: dict[str, list[str]] = {}
    for kernel in links.outputs:
        names[kernel] = names[layer_of(kernel)] = [kernel]
    for link in links:
        if link.regular:
            names[link.name] = list(links.masked(link))
    return names


def zero_kernels(
    links: Links, arrays: Mapping[str, np.ndarray], masks: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """Which filters are zero and pruned: `{kernel: bool [C]}`.

    Args:
      links: of the network.
      arrays: of the network, by path.
      masks: as of `cut`; None prunes all that are zero.

    Raises:
      UserError: a mask of another network, or a filter that is pruned but not zero.
    """
    zero = {}
    for kernel, channels in links.outputs.items():
        axis = links.axis(kernel, channels)
        others = tuple(a for a in range(arrays[kernel].ndim) if a != axis)
        zero[kernel] = (arrays[kernel] == 0).all(others)
    if masks is None:
        return zero
    names = kernels_of_masks(links)
    depthwise = {kernel for link in links for kernel in link.depthwise}
    pruned = {kernel: np.zeros(len(each), bool) for kernel, each in zero.items()}
    for name, mask in masks.items():
        mask = np.asarray(mask, bool)
        kernels = names.get(name)
        if kernels is None or mask.shape != pruned[kernels[0]].shape:
            layer = f"{len(pruned[kernels[0]])} filters there" if kernels else "no such layer"
            raise UserError(f"the mask {name!r} {mask.shape} is of another network: {layer}")
        for kernel in kernels:
            nonzero = ~mask & ~zero[kernel]
            # Behind a zero filter a depthwise kernel may be anything.
            if nonzero.any() and (len(kernels) == 1 or kernel not in depthwise):
                raise UserError(
                    f"filter {np.flatnonzero(nonzero)[0]} of {layer_of(kernel)!r} is pruned by its "
                    "mask but not zero: apply the mask first, or remove hard-pruned filters only"
                )
            pruned[kernel] |= ~mask
    return {kernel: each & pruned[kernel] for kernel, each in zero.items()}
