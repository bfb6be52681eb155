"""What the tests of removal share: networks with zero filters, and running them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kdjax.compaction import filter_groups
from kdjax.tree import leaves
from tests.models.families import FAMILIES, random_variables

# Compiling is most of these tests.


def images(height: int = 16, width: int = 16, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, height, width, 3))


def pruned(params, groups, rate: float = 0.4, seed: int = 1):
    """Parameters in which `rate` of every group's filters is zero, drawn at random, and masks."""
    random = np.random.default_rng(seed)
    flat, masks = dict(leaves(params)), {}
    for group in groups:
        count = flat[group.leaves[0]].shape[-1]
        masks[group.name] = random.permutation(count) >= int(count * rate)
        for path in group.leaves:
            flat[path] = flat[path] * masks[group.name].astype(flat[path].dtype)
    return traverse_util.unflatten_dict(flat, sep="/"), masks


def prepared(name: str, rate: float = 0.4, **kinds):
    """A network in float64, variables with zero filters, their masks and groups."""
    network = FAMILIES[name].clone(dtype=jnp.float64)
    variables = random_variables(network)
    groups = filter_groups(network, **kinds)
    variables["params"], masks = pruned(variables["params"], groups, rate)
    return network, variables, masks, groups


def logits(network, variables, x) -> np.ndarray:
    run = jax.jit(lambda v, x: network.apply(v, x).logits)
    return np.asarray(run(variables, x))


def assert_close(actual, expected, relative: float = 1e-11) -> None:
    """Up to `relative` of the largest value of all arrays."""
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * largest)

    jax.tree.map(compare, actual, expected)
