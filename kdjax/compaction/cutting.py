"""Cuts arrays of a network to those of its smaller version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kdjax.models import BatchNorm, StagedNetwork
from kdjax.models.filters import Link
from kdjax.models.narrowing import Narrow, narrow_layers
from kdjax.tree import paths

# Kept indices of arrays, by path: {axis: indices}, axes counted from the end.
Cuts = dict[str, dict[int, np.ndarray]]
# The leaves of all collections of a network, by their paths.
Arrays = Mapping[str, np.ndarray]


def narrow(tree: Any, cuts: Cuts, *, within: str = "") -> Any:
    """Cuts the arrays of a pytree to the filters that a smaller network keeps.

    Optimizer states, running statistics and masks are cut as the parameters that they belong to:
    their paths end in the same keys.

    Args:
      tree: parameters, `batch_stats`, an optimizer's state, or a whole training state. Arrays may
        have more axes in front, such as one for devices.
      cuts: of `Removal`.
      within: '/'-joined keys of the subtree that is the network, at any depth, such as 'network_0'
        of a cohort. By default every path that ends as one of the network's is cut, so a tree with
        more than this network needs `within`.

    Returns:
      The pytree with smaller arrays.
    """

    arrays = [
        narrow_array(path, leaf, cuts, within=within)
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), arrays)


def narrow_array(path: str, array: Any, cuts: Cuts, *, within: str = "") -> Any:
    """`narrow` for one array of a tree, whose path is `path`."""
    for axis, indices in _cut_of(path, cuts, within).items():
        array = array.take(indices, axis=axis)
    return array


def _cut_of(name: str, cuts: Cuts, within: str) -> dict[int, np.ndarray]:
    if within:
        _, _, name = f"/{name}".partition(f"/{within}/")
        return cuts.get(name, {})
    keys = name.split("/")
    endings = ("/".join(keys[start:]) for start in range(len(keys)))
    return next((cuts[ending] for ending in endings if ending in cuts), {})


def cuts_between(before: StagedNetwork, after: StagedNetwork, arrays: Arrays) -> Cuts:
    """Cuts from the arrays of `before` to those of `after`, which has fewer filters.

    The path of a convolution and the name of a residual sum stand for the masks of their filters.
    """
    old, new = narrow_layers(before), narrow_layers(after)
    cuts: Cuts = {}
    for layer, now in new.items():
        was = old.get(layer, Narrow())
        filters = _remaining(was.filters, now.filters)
        inputs = _remaining(was.reads, now.reads)
        filter_cut = {} if filters is None else {-1: filters}
        if f"{layer}/kernel" in arrays:
            cuts[layer] = filter_cut
            cuts[f"{layer}/kernel"] = filter_cut | ({} if inputs is None else {-2: inputs})
        for leaf in ("bias", "scale", "mean", "var"):
            if f"{layer}/{leaf}" in arrays:
                cuts[f"{layer}/{leaf}"] = filter_cut
    sums = () if after.compaction is None else after.compaction.sums
    for group in after.residual_groups():
        if group.name in sums:
            cuts[group.name] = cuts[group.convs[0]]
    return {path: cut for path, cut in cuts.items() if cut}


def _remaining(before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray | None:
    """Positions of the channels of `after` among those of `before`; None where they are equal.

    Args:
      before, after: channels of the dense network, as masks or indices; None for all.
    """
    if after is None:
        return None
    kept = after if before is None else after[before]
    return None if kept.all() else np.flatnonzero(kept)


def folded_constants(
    network: StagedNetwork, links: Sequence[Link], arrays: Arrays
) -> dict[str, np.ndarray]:
    """Parameters of consumers that contain what removed constant channels contribute to them.

    Args:
      network: compact, with `constants`.
      links: the links that lost filters.
      arrays: of the dense network.

    Returns:
      Biases of linear layers, and 'folded' arrays of convolutions, by their paths.
    """
    masks = {} if network.compaction is None else network.compaction.masks
    plan = narrow_layers(network)
    folded: dict[str, np.ndarray] = {}
    for link in links:
        missing = ~masks[link.name]
        values = constant_of(link, arrays)[missing]
        values = np.maximum(values, 0) if link.relu else values
        for consumer in link.consumers:
            kernel = arrays[f"{consumer}/kernel"]
            contribution = np.einsum("...io,i->...o", kernel[..., missing, :], values)
            if kernel.ndim == 2:
                folded[f"{consumer}/bias"] = arrays[f"{consumer}/bias"] + contribution
                continue
            filters = plan[consumer].filters
            if filters is not None:
                contribution = contribution[..., filters]
            folded[f"{consumer}/folded"] = contribution[..., None, :]
    return folded


def constant_of(link: Link, arrays: Arrays) -> np.ndarray:
    """The values before ReLU, in evaluation, of a link's channels whose kernels are zero: `[C]`.

    The operations and their order are those of `kdjax.models.BatchNorm`.
    """
    conv, norm = link.convs[-1], link.norms[-1]
    kernel = arrays[f"{conv}/kernel"]
    value = arrays.get(f"{conv}/bias", np.zeros(kernel.shape[-1], kernel.dtype))
    if not norm:
        return value
    mean, var = arrays[f"{norm}/mean"], arrays[f"{norm}/var"]
    multiplier = arrays[f"{norm}/scale"] / np.sqrt(var + var.dtype.type(BatchNorm.epsilon))
    return value * multiplier + (arrays[f"{norm}/bias"] - mean * multiplier)
