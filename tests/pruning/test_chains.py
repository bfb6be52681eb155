"""Pruning in the optimizers of other projects: flax.nnx, and optax's wrappers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from kdjax import pruning
from tests.pruning.trees import gradients, zeros

PARAMS = {
    "conv": {"kernel": np.random.default_rng(0).normal(size=(3, 3, 2, 10)).astype(np.float32)},
    "out": {"kernel": np.ones((10, 3), np.float32)},
}


def prune(method: str = "hfp", **options) -> optax.GradientTransformation:
    return getattr(pruning, method)(pruning.official, 0.4, epochs=2, every=1, **options)


def run(tx, updates: int, params=PARAMS, make_gradients=gradients):
    state = tx.init(params)

    @jax.jit
    def step(params, state, grads):
        changes, state = tx.update(grads, state, params)
        return optax.apply_updates(params, changes), state

    history = []
    for number in range(updates):
        params, state = step(params, state, make_gradients(params, number))
        history.append((params, state))
    return history


def gone(params) -> np.ndarray:
    return zeros(np.asarray(params["conv"]["kernel"]))


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 10, (3, 3), rngs=rngs)
        self.out = nnx.Linear(10, 5, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).mean((1, 2)))


def test_nnx_optimizer():
    network = Network(nnx.Rngs(0))
    chain = optax.chain(optax.sgd(0.1, momentum=0.9), prune())
    optimizer = nnx.Optimizer(network, chain, wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer):
        gradient = nnx.grad(lambda n: jnp.square(n(jnp.ones((2, 4, 4, 3))) - 1).mean())(network)
        optimizer.update(network, gradient)

    for _ in range(2):
        step(network, optimizer)
    kernel = np.asarray(network.conv.kernel[...])
    mask = pruning.pruning_state(optimizer.opt_state).masks["conv"][...]
    assert zeros(kernel).sum() == 4
    np.testing.assert_array_equal(np.asarray(mask), ~zeros(kernel))
    paths = [group.leaves for group in pruning.official(nnx.state(network, nnx.Param))]
    assert paths == [("conv/kernel",)]


def test_multi_steps():
    """Pruning is due after every update of the optimizer, not after every mini-step."""
    tx = optax.MultiSteps(optax.chain(optax.sgd(0.1), prune()), every_k_schedule=3)
    numbers = [gone(params).sum() for params, _ in run(tx, 6)]
    assert numbers == [0, 0, 4, 4, 4, 4]


def test_apply_if_finite():
    def broken(params, number):
        grads = gradients(params, number)
        if number == 1:
            grads["out"]["kernel"][0, 0] = np.nan
        return grads

    tx = optax.apply_if_finite(optax.chain(optax.sgd(0.1), prune()), max_consecutive_errors=3)
    (first, _), (second, state), (third, last) = run(tx, 3, make_gradients=broken)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert pruning.pruning_state(state).count == 1
    assert pruning.pruning_state(last).count == 2
    np.testing.assert_array_equal(gone(third), gone(first))
    assert gone(third).sum() == 4


def test_masked():
    """Only the unmasked part of the tree is seen, and the others' updates pass."""
    tx = optax.chain(
        optax.sgd(0.1),
        optax.masked(prune(), {"conv": True, "out": False}),
    )
    ((params, state),) = run(tx, 1)
    assert gone(params).sum() == 4
    assert set(pruning.pruning_state(state).masks) == {"conv"}
    expected = PARAMS["out"]["kernel"] - np.float32(0.1) * gradients(PARAMS, 0)["out"]["kernel"]
    np.testing.assert_allclose(params["out"]["kernel"], expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["hfp", "sfp"])
def test_averaged_updates_and_parameters(method):
    """An average of the updates stands before pruning; one of the parameters beside it."""
    tx = optax.chain(optax.sgd(0.1), optax.ema(0.9), prune(method))
    history = run(tx, 4)
    assert all(gone(params).sum() == 4 for params, _ in history)
    average = history[0][0]
    for params, _ in history[1:]:
        average = optax.incremental_update(params, average, 0.1)
    if method == "hfp":
        np.testing.assert_array_equal(gone(average), gone(history[-1][0]))
