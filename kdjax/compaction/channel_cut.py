"""Removal of pruned filters from any network, by its links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax.compaction import emitted
from kdjax.compaction.cutting import Cuts, narrow, narrow_array
from kdjax.compaction.link_table import Links, layer_of, trees_of
from kdjax.compaction.mask_names import kernels_of_masks, zero_kernels
from kdjax.errors import UserError
from kdjax.pruning.engine import PruningState
from kdjax.tree import leaves, paths


class Cut(NamedTuple):
    """A network without pruned filters.

    Attributes:
      params: as they were given, with smaller arrays.
      filters: `{layer: number of filters left}`, for every layer that lost some.
      stays: why pruned filters of a layer were not removed: `{layer: reason}`. They are zero, and
        harmless.
      inexact: by what the outputs differ from those of the masked network: `{layer: what}`. Empty
        unless `cut(..., exact=False)`.
      cuts: the kept indices of every array, `{path: {axis: indices}}`, axes counted from the end.
      kept: the filters that are left of those of each mask, `{name: bool [C]}`.
      removed: how many filters this cut and earlier ones have removed, by the names of links. Where
        the smaller network is pruned further, `Links.after` takes them.
    """

    params: Any
    filters: dict[str, int]
    stays: dict[str, str]
    inexact: dict[str, str]
    cuts: Cuts
    kept: dict[str, np.ndarray]
    removed: dict[str, int]


def cut(
    params: Any, links: Links, masks: Mapping[str, Any] | None = None, *, exact: bool = True
) -> Cut:
    """Removes pruned filters from a network of any framework.

    In evaluation the result has the outputs of the network, up to rounding. A channel goes if its
    filters are zero, all of them where several layers are tied, and every consumer reads a constant
    from it: what biases, BatchNorm and activations make of zero. These constants are computed from
    the parameters, and move into the consumer's bias or into the BatchNorm behind it. Where that is
    not exact (a consumer that pads a constant other than zero with zeros, or has neither bias nor
    BatchNorm), the filters stay. None stays for this reason if `links.groups` chose what is pruned.

    Args:
      params: as of `trace_links`, with arrays.
      links: of this network.
      masks: `{name: bool [C]}`, False for the filters to remove, as in `PruningState`. Names are
        those of links, of layers or of kernels. None removes all zero filters.
      exact: whether filters whose removal changes the outputs stay. Otherwise they go, constants
        move where they can, and `Cut.inexact` says which layers are affected.

    Returns:
      The smaller arrays, and what became of the filters.

    Raises:
      UserError: arrays or masks of another network, a filter that is pruned by its mask but not
        zero, or a layer that would have no filter.
    """
    trees = trees_of(params)
    arrays = {path: np.asarray(x) for tree in trees for path, x in leaves(tree).items()}
    if {path: array.shape for path, array in arrays.items()} != links.shapes:
        raise UserError("params are not those of these links: trace or declare the links again")
    zero = zero_kernels(links, arrays, masks)
    wanted = np.zeros(links.component.max(initial=0) + 1, bool)
    for kernel, pruned in zero.items():
        wanted[links.component[links.outputs[kernel][pruned]]] = True
    removed, reasons = wanted.copy(), dict(links.reasons)
    removed[list(reasons)] = False
    reads = emitted.reads(links.flow, arrays, zero)
    emitted.keep_unknown(links, reads, removed, reasons)
    inexact: dict[str, str] = {}
    if exact:
        emitted.keep_inexact(links, reads, removed, reasons)
    else:
        inexact = emitted.inexact_layers(links, reads, removed)
    cuts = _cuts(links, removed)
    arrays |= emitted.folded(links, arrays, reads, removed)
    smaller = []
    for tree in trees:
        values = [arrays[path] for path in leaves(tree)]
        smaller.append(narrow(jax.tree.unflatten(jax.tree.structure(tree), values), cuts))
    names = kernels_of_masks(links)
    kept = {name: ~_at(links, kernels[0], removed) for name, kernels in names.items()}
    return Cut(
        tuple(smaller) if type(params) is tuple else smaller[0],
        _filters(links, removed),
        _stays(links, wanted & ~removed, reasons),
        inexact,
        cuts,
        kept,
        {
            link.name: links.removed.get(link.name, 0) + int((~kept[link.name]).sum())
            for link in links
            if link.regular
        },
    )


def cut_like(tree: Any, smaller: Cut) -> Any:
    """Cuts what belongs to a network's parameters as `cut` cut them.

    Args:
      tree: an optimizer's state (momentum, Adam's moments, the masks of `kdjax.pruning`), averaged
        weights, gradients, or a whole training state that holds one network. The paths of its
        arrays end in those of the parameters; there may be more axes in front, such as one for
        devices.
      smaller: the result of `cut`.

    Returns:
      The tree with smaller arrays.
    """

    def is_pruning(node: Any) -> bool:
        return isinstance(node, PruningState)

    def of_masks(masks: Mapping[str, Any]) -> Mapping[str, Any]:
        arrays = []
        for name, mask in zip(paths(masks), jax.tree.leaves(masks), strict=True):
            kept = smaller.kept.get(name)
            if kept is not None and mask.shape[-1:] == kept.shape:
                arrays.append(mask[..., kept])
            else:  # of single weights
                arrays.append(narrow_array(name, mask, smaller.cuts))
        return jax.tree.unflatten(jax.tree.structure(masks), arrays)

    nodes, structure = jax.tree.flatten(tree, is_leaf=is_pruning)
    others = jax.tree.unflatten(structure, [None if is_pruning(node) else node for node in nodes])
    rest = iter(jax.tree.leaves(narrow(others, smaller.cuts)))
    return jax.tree.unflatten(
        structure,
        [
            node._replace(masks=of_masks(node.masks), hard=of_masks(node.hard))
            if is_pruning(node)
            else next(rest)
            for node in nodes
        ],
    )


def _at(links: Links, kernel: str, by_component: np.ndarray) -> np.ndarray:
    """What holds for the filters of a kernel: `[C]`."""
    return by_component[links.component[links.outputs[kernel]]]


def _cuts(links: Links, removed: np.ndarray) -> Cuts:
    """The kept indices of all arrays; those that keep all have none.

    Raises:
      UserError: a layer would have no filter.
    """
    for kernel in links.outputs:
        if _at(links, kernel, removed).all():
            raise UserError(f"no filter of {layer_of(kernel)!r} is left: prune fewer")
    cuts: Cuts = {path: {} for path in links.shapes}
    for path, axes in links.flow.axes.items():
        for axis, channels in enumerate(axes):
            missing = removed[links.component[channels]]
            if missing.any():
                cuts[path][axis - len(axes)] = np.flatnonzero(~missing)
    return cuts


def _filters(links: Links, removed: np.ndarray) -> dict[str, int]:
    missing = {kernel: _at(links, kernel, removed) for kernel in links.outputs}
    return {layer_of(k): int((~each).sum()) for k, each in missing.items() if each.any()}


def _stays(links: Links, stays: np.ndarray, reasons: Mapping[int, str]) -> dict[str, str]:
    """Why filters that are pruned were not removed, by layer."""
    layers = {}
    for kernel, channels in links.outputs.items():
        members = links.component[channels]
        members = members[stays[members]]
        if len(members):
            filters = f"{len(members)} filter" + "s" * (len(members) > 1)
            layers[layer_of(kernel)] = f"{filters}: {reasons[members[0]]}"
    return layers
