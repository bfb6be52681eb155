"""Smaller networks at their full size: what was removed is noise that nobody reads."""

from __future__ import annotations

import jax
import numpy as np

from kdjax.compaction import Cut, Links
from kdjax.compaction.link_table import trees_of
from kdjax.tree import leaves


def spread(smaller: Cut, params, links: Links):
    """The arrays of a smaller network in their old shapes, for the old program.

    Removed filters, biases and norms become noise, and the weights that read removed channels
    become zero: the outputs are those of the smaller network.
    """
    random = np.random.default_rng(0)
    readers: dict[str, set[int]] = {}
    for each in links.flow.contractions:
        if each.inputs is not None:
            axis = links.axis(each.kernel, each.kernel_inputs)
            readers.setdefault(each.kernel, set()).add(axis)

    def spread_array(path, full, part):
        indices = [np.arange(size) for size in full.shape]
        for axis, kept in smaller.cuts[path].items():
            indices[axis] = kept
        result = random.uniform(1, 2, full.shape).astype(full.dtype)
        result[np.ix_(*indices)] = part
        for axis in readers.get(path, ()):
            removed = np.setdiff1d(np.arange(full.shape[axis]), indices[axis])
            np.moveaxis(result, axis, 0)[removed] = 0
        return result

    trees = []
    for tree, small in zip(trees_of(params), trees_of(smaller.params), strict=True):
        pairs = zip(leaves(tree).items(), leaves(small).values(), strict=True)
        arrays = [spread_array(path, np.asarray(full), part) for (path, full), part in pairs]
        trees.append(jax.tree.unflatten(jax.tree.structure(tree), arrays))
    return tuple(trees) if type(params) is tuple else trees[0]
