"""Random parameter trees, random gradients, and training with them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.pruning import PruningState, pruning_state
from kdjax.tree import leaves

EVERY = 3  # updates per epoch in these tests


def tree(seed: int, *, convolutions: int = 2, dtype=jnp.float32) -> dict:
    """Convolutions of random sizes at random depths, and leaves that are none."""
    random = np.random.default_rng(seed)
    params: dict = {
        "classifier": {
            "kernel": normal(random, (7, 3), dtype),
            "bias": normal(random, (3,), dtype),
        },
        "scale": normal(random, (), dtype),
    }
    for index in range(convolutions):
        node = params
        for level in range(random.integers(0, 3)):
            node = node.setdefault(f"block{level}", {})
        inputs, filters = random.integers(2, 5), random.integers(10, 41)
        side = random.choice([1, 3])
        node[f"conv{index}"] = {"kernel": normal(random, (side, side, inputs, filters), dtype)}
        norm = {name: normal(random, (filters,), dtype) for name in ("scale", "bias")}
        node[f"bn{index}"] = norm
    return params


def normal(random: np.random.Generator, shape, dtype=jnp.float32) -> np.ndarray:
    return random.normal(size=shape).astype(dtype)


def gradients(params, seed: int) -> dict:
    random = np.random.default_rng(1000 + seed)
    return jax.tree.map(lambda x: normal(random, x.shape, x.dtype), params)


def kernels(params) -> dict[str, np.ndarray]:
    """The convolutions' kernels by the names of their groups."""
    return {
        path.removesuffix("/kernel"): np.asarray(leaf, np.float32)
        for path, leaf in leaves(params).items()
        if leaf.ndim == 4
    }


def zeros(kernel: np.ndarray) -> np.ndarray:
    """Which filters are exactly zero, `[C]`."""
    return ~kernel.any(axis=tuple(range(kernel.ndim - 1)))


def sgd(prune: optax.GradientTransformation) -> optax.GradientTransformation:
    """Everything that could move a frozen filter, then pruning."""
    return optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9, nesterov=True), prune
    )


class Moment(NamedTuple):
    """Parameters and state after an update."""

    params: dict
    opt_state: object

    @property
    def pruning(self) -> PruningState:
        return pruning_state(self.opt_state)


class Training:
    """Steps with random gradients, compiled once for all the runs made of them."""

    def __init__(self, tx: optax.GradientTransformation, *, jit: bool = True):
        self.tx = tx

        def step(params, opt_state, grads):
            changes, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, changes), opt_state

        self.step = jax.jit(step) if jit else step

    def run(self, params, updates: int, *, start: int = 0, opt_state=None) -> list[Moment]:
        """The moments after each of `updates` updates, of which the first is number `start`."""
        opt_state = self.tx.init(params) if opt_state is None else opt_state
        moments = []
        for number in range(start, start + updates):
            params, opt_state = self.step(params, opt_state, gradients(params, number))
            # In numpy, which need not compile what the tests look at.
            moments.append(Moment(*jax.tree.map(np.asarray, (params, opt_state))))
        return moments


def train(tx: optax.GradientTransformation, params, updates: int) -> list[Moment]:
    """One run of a `Training`."""
    return Training(tx).run(params, updates)


def ends(moments: list[Moment]) -> list[Moment]:
    """The moments just after a pruning."""
    return moments[EVERY - 1 :: EVERY]


def assert_same(one, other) -> None:
    """Fails unless two trees have the same bits."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)
