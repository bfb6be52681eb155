"""Arrays of a network made into those of a smaller one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kdjax.models import BatchNorm, StagedNetwork
from kdjax.models.filters import Link
from kdjax.models.narrowing import Narrow, narrow_layers

# What is left of an array: {axis: indices}, axes counted from the end, by the array's path.
Cuts = dict[str, dict[int, np.ndarray]]
# The leaves of all collections of a network, by their paths.
Arrays = Mapping[str, np.ndarray]


def narrow(tree: Any, cuts: Cuts, *, within: str = "") -> Any:
    """Any pytree with a network's arrays, with those of the smaller network in their places.

    Optimizer states, running statistics and masks are cut as the parameters that they belong to:
    their paths end in the same keys.

    Args:
      tree: parameters, `batch_stats`, an optimizer's state, or a whole training state. Arrays may
        have more axes in front, say one for devices.
      cuts: of `Removal`.
      within: the '/'-joined keys under which the network is, at any depth: 'network_0' in all that
        belongs to a cohort. Without it, every path that ends as one of the network's is meant, so
        that a tree with more than this network needs it.
    """

    def cut(path: tuple, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for axis, indices in _cut_of(name, cuts, within).items():
            leaf = leaf.take(indices, axis=axis)
        return leaf

    return jax.tree_util.tree_map_with_path(cut, tree)


def _cut_of(name: str, cuts: Cuts, within: str) -> dict[int, np.ndarray]:
    if within:
        _, _, name = f"/{name}".partition(f"/{within}/")
        return cuts.get(name, {})
    keys = name.split("/")
    endings = ("/".join(keys[start:]) for start in range(len(keys)))
    return next((cuts[ending] for ending in endings if ending in cuts), {})


def cuts_between(before: StagedNetwork, after: StagedNetwork, arrays: Arrays) -> Cuts:
    """What is left of the arrays of `before` in `after`, which has fewer filters.

    A convolution's own path and a residual sum's name stand for the masks of their filters.
    """
    old, new = narrow_layers(before), narrow_layers(after)
    cuts: Cuts = {}
    for layer, now in new.items():
        was = old.get(layer, Narrow())
        filters, reads = _left(was.filters, now.filters), _left(was.reads, now.reads)
        own = {} if filters is None else {-1: filters}
        if f"{layer}/kernel" in arrays:
            cuts[layer] = own
            cuts[f"{layer}/kernel"] = own if reads is None else own | {-2: reads}
        for leaf in ("bias", "scale", "mean", "var"):
            if f"{layer}/{leaf}" in arrays:
                cuts[f"{layer}/{leaf}"] = own
    for each in after.residual_groups():
        if each.name in after.compaction.sums:
            cuts[each.name] = cuts[each.convs[0]]
    return {path: cut for path, cut in cuts.items() if cut}


def _left(before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray | None:
    """Where, among the channels that `before` has, those of `after` are; None: all, in order."""
    if after is None:
        return None
    left = after if before is None else after[before]
    return None if left.all() else np.flatnonzero(left)


def folded_constants(
    network: StagedNetwork, links: Sequence[Link], arrays: Arrays
) -> dict[str, np.ndarray]:
    """The parameters of consumers in which constant channels of their inputs are contained.

    Args:
      network: compact, with `constants`.
      links: those that have lost filters.
      arrays: of the dense network.
    """
    plan, masks = narrow_layers(network), network.compaction.masks
    found: dict[str, np.ndarray] = {}
    for link in links:
        missing = ~masks[link.name]
        values = constant_of(link, arrays)[missing]
        values = np.maximum(values, 0) if link.relu else values
        for consumer in link.consumers:
            kernel = arrays[f"{consumer}/kernel"]
            lost = np.einsum("...io,i->...o", kernel[..., missing, :], values)
            if kernel.ndim == 2:
                found[f"{consumer}/bias"] = arrays[f"{consumer}/bias"] + lost
                continue
            filters = plan[consumer].filters
            lost = lost if filters is None else lost[..., filters]
            found[f"{consumer}/folded"] = lost[..., None, :]
    return found


def constant_of(link: Link, arrays: Arrays) -> np.ndarray:
    """`[C]`: what a link's channels are, before ReLU, in evaluation, where the kernel is zero.

    The same operations, in the same order, as those of `kdjax.models.BatchNorm`.
    """
    conv, norm = link.convs[-1], link.norms[-1]
    kernel = arrays[f"{conv}/kernel"]
    value = arrays.get(f"{conv}/bias", np.zeros(kernel.shape[-1], kernel.dtype))
    if not norm:
        return value
    mean, var = arrays[f"{norm}/mean"], arrays[f"{norm}/var"]
    multiplier = arrays[f"{norm}/scale"] / np.sqrt(var + var.dtype.type(BatchNorm.epsilon))
    return value * multiplier + (arrays[f"{norm}/bias"] - mean * multiplier)
