"""Train with GHFP, cut, the same logits: in flax.linen, flax.nnx and Equinox."""

from __future__ import annotations

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from kdjax import compaction, pruning

IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
LABELS = jnp.arange(4)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def optimizer(links):
    prune = pruning.ghfp(links.groups, 0.4, epochs=3, every=1)
    return optax.chain(optax.sgd(0.1, momentum=0.9), prune)


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def cut_and_compared(links, params, opt_state, logits, apply):
    """The smaller network has the logits of the pruned one, and fewer of everything."""
    masks = pruning.pruning_state(opt_state).masks
    smaller = compaction.cut(params, links, {name: mask[...] for name, mask in masks.items()})
    assert not smaller.stays
    assert not smaller.inexact
    np.testing.assert_allclose(apply(smaller), logits, rtol=1e-5, atol=1e-5)
    assert size(smaller.params) < 0.6 * size(params)
    assert size(compaction.cut_like(opt_state, smaller)) < 0.65 * size(opt_state)


class Linen(nn.Module):
    """A residual sum, a depthwise convolution, a concatenation; widths are fields."""

    stem: int = 8
    inner: int = 6
    side: int = 5
    hidden: int = 10

    @nn.compact
    def __call__(self, x, train=False):
        def norm(x, name):
            return nn.BatchNorm(use_running_average=not train, name=name)(x)

        x = nn.relu(norm(nn.Conv(self.stem, (3, 3), name="stem")(x), "stem_bn"))
        y = nn.relu(norm(nn.Conv(self.inner, (3, 3), use_bias=False, name="inner")(x), "inner_bn"))
        x = nn.relu(x + norm(nn.Conv(self.stem, (3, 3), use_bias=False, name="back")(y), "back_bn"))
        x = nn.Conv(self.stem, (3, 3), feature_group_count=self.stem, name="depthwise")(x)
        x = jnp.concatenate([x, nn.Conv(self.side, (1, 1), name="side")(x)], -1)
        x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        x = nn.relu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(5, name="fc")(x)


@pytest.mark.slow
def test_linen():
    network = Linen()
    variables = network.init(jax.random.key(0), IMAGES)
    params, stats = variables["params"], variables["batch_stats"]

    def forward(params, stats, images):
        return network.apply({"params": params, "batch_stats": stats}, images)

    links = compaction.trace_links(forward, (params, stats), IMAGES)
    tx = optimizer(links)
    opt_state = tx.init(params)

    @jax.jit
    def step(params, stats, opt_state):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            logits, updated = network.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
            return cross_entropy(logits), updated["batch_stats"]

        gradients, new_stats = jax.grad(loss, has_aux=True)(params)
        updates, new_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), new_stats, new_state

    for _ in range(3):
        params, stats, opt_state = step(params, stats, opt_state)

    def small(smaller):
        widths = {name: smaller.filters[name] for name in ("stem", "inner", "side", "hidden")}
        params, stats = smaller.params
        return Linen(**widths).apply({"params": params, "batch_stats": stats}, IMAGES)

    cut_and_compared(links, (params, stats), opt_state, forward(params, stats, IMAGES), small)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.stem_bn = nnx.BatchNorm(8, rngs=rngs)
        self.inner = nnx.Conv(8, 6, (3, 3), use_bias=False, rngs=rngs)
        self.inner_bn = nnx.BatchNorm(6, rngs=rngs)
        self.back = nnx.Conv(6, 8, (3, 3), use_bias=False, rngs=rngs)
        self.back_bn = nnx.BatchNorm(8, rngs=rngs)
        self.fc = nnx.Linear(8 * 16, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem_bn(self.stem(x)))
        x = nnx.relu(x + self.back_bn(self.back(nnx.relu(self.inner_bn(self.inner(x))))))
        return self.fc(nnx.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1))


@pytest.mark.slow
def test_nnx():
    network = Nnx(nnx.Rngs(0))

    def parts():
        network.eval()
        return nnx.split(network, nnx.Param, nnx.BatchStat)

    graph, *params = parts()
    links = compaction.trace_links(
        lambda params, stats, images: nnx.merge(graph, params, stats)(images),
        tuple(params),
        IMAGES,
    )
    trained = nnx.Optimizer(network, optimizer(links), wrt=nnx.Param)
    network.train()

    @nnx.jit
    def step(network, trained):
        gradients = nnx.grad(lambda network: cross_entropy(network(IMAGES)))(network)
        trained.update(network, gradients)

    for _ in range(3):
        step(network, trained)
    graph, *params = parts()
    cut_and_compared(
        links,
        tuple(params),
        trained.opt_state,
        network(IMAGES),
        lambda smaller: nnx.merge(graph, *smaller.params)(IMAGES),
    )


class Equinox(eqx.Module):
    stem: eqx.nn.Conv2d
    stem_bn: eqx.nn.BatchNorm
    inner: eqx.nn.Conv2d
    inner_bn: eqx.nn.BatchNorm
    back: eqx.nn.Conv2d
    fc: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.stem = eqx.nn.Conv2d(3, 8, 3, padding=1, key=keys[0])
        self.stem_bn = eqx.nn.BatchNorm(8, axis_name="batch", mode="batch")
        self.inner = eqx.nn.Conv2d(8, 6, 3, padding=1, key=keys[1])
        self.inner_bn = eqx.nn.BatchNorm(6, axis_name="batch", mode="batch")
        self.back = eqx.nn.Conv2d(6, 8, 3, padding=1, key=keys[2])
        self.fc = eqx.nn.Linear(8 * 16, 5, key=keys[3])

    def __call__(self, x, state):
        x, state = self.stem_bn(self.stem(x), state)
        x = jax.nn.relu(x)
        y, state = self.inner_bn(self.inner(x), state)
        x = jax.nn.relu(x + self.back(jax.nn.relu(y)))
        x = eqx.nn.AvgPool2d(2, 2)(x)
        return self.fc(x.reshape(-1)), state


@pytest.mark.slow
def test_equinox():
    network, state = eqx.nn.make_with_state(Equinox)(jax.random.key(0))
    images = IMAGES.transpose(0, 3, 1, 2)
    params, static = eqx.partition(network, eqx.is_inexact_array)

    def outputs(network, state, images):
        mapped = jax.vmap(network, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        return mapped(images, state)

    def forward(params, state, images):
        return outputs(eqx.nn.inference_mode(eqx.combine(params, static)), state, images)[0]

    links = compaction.trace_links(forward, (params, state), images)
    tx = optimizer(links)
    opt_state = tx.init(params)

    @eqx.filter_jit
    def step(params, state, opt_state):
        def loss(params):
            logits, new_state = outputs(eqx.combine(params, static), state, images)
            return cross_entropy(logits), new_state

        gradients, new_state = jax.grad(loss, has_aux=True)(params)
        updates, new_opt_state = tx.update(gradients, opt_state, params)
        return eqx.apply_updates(params, updates), new_state, new_opt_state

    for _ in range(3):
        params, state, opt_state = step(params, state, opt_state)
    cut_and_compared(
        links,
        (params, state),
        opt_state,
        forward(params, state, images),
        lambda smaller: forward(*smaller.params, images),
    )
