"""Every family without its zero filters, in evaluation and in training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from kdjax import models
from kdjax.compaction import narrow, remove_filters, shrink
from kdjax.models import narrowing
from tests.compaction.removed import assert_close, images, logits, prepared
from tests.models.families import FAMILIES, shapes_of

RESIDUAL = [name for name, network in FAMILIES.items() if network.residual_groups()]


def parametrize(names, default: set[str]):
    """The names of `default` in the default run, the others marked slow."""
    parameters = [pytest.param(n, marks=() if n in default else pytest.mark.slow) for n in names]
    return pytest.mark.parametrize("name", parameters)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def assert_smaller(result, network, variables, least: float) -> None:
    """What `init` makes has the shapes of the variables, and is smaller by this part or more."""
    shapes = jax.tree.map(lambda leaf: leaf.shape, shapes_of(result.network))
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, result.variables)
    before, after = (models.parameter_count(v["params"]) for v in (variables, result.variables))
    assert after < (1 - least) * before
    before, after = (models.multiply_adds(n, (32, 32, 3)) for n in (network, result.network))
    assert after < (1 - least) * before


@parametrize(FAMILIES, {"resnet, padding", "vgg", "shufflenet v2"})
def test_evaluation_is_the_same_where_batch_norm_makes_constants(name):
    network, variables, masks, _ = prepared(name, projections=True)
    result = remove_filters(network, variables, masks)
    assert result.network.compaction.constants
    assert_smaller(result, network, variables, 0.2)
    size = max(16, network.stride)
    for x in (images(size, size), images(size + 8, size + 4)):
        assert_close(logits(result.network, result.variables, x), logits(network, variables, x))


def step(network):
    """Some loss, new statistics, and gradients, in training."""

    def loss(params, batch_stats, x):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, updated = network.apply(variables, x, train=True, mutable=["batch_stats"])
        return jnp.sin(outputs.logits).sum(), updated["batch_stats"]

    def run(variables, x):
        gradient = jax.value_and_grad(loss, has_aux=True)
        return gradient(variables["params"], variables["batch_stats"], x)

    return jax.jit(run)


def assert_trains_alike(result, network, variables) -> None:
    size = max(16, network.stride)
    x = images(size, size)
    (loss, statistics), gradients = step(network)(variables, x)
    (own_loss, own_statistics), own_gradients = step(result.network)(result.variables, x)
    assert_close(own_loss, loss)
    assert_close(own_statistics, narrow(statistics, result.cuts))
    assert_close(own_gradients, narrow(gradients, result.cuts), 1e-9)


@parametrize(FAMILIES, {"resnet, padding"})
def test_training_is_the_same_where_batch_norm_is_pruned_too(name):
    network, variables, masks, _ = prepared(name, norms=True, projections=True)
    result = shrink(network, variables, masks)
    assert_smaller(result, network, variables, 0.2)
    assert_trains_alike(result, network, variables)


@parametrize(RESIDUAL, set())
def test_residual_sums_lose_channels(name):
    network, variables, masks, _ = prepared(name, norms=True, residual=True)
    result = shrink(network, variables, masks)
    assert set(result.network.compaction.sums) == {each.name for each in network.residual_groups()}
    plan = narrowing.narrow_layers(result.network)
    assert not any(layer.widen or layer.select for layer in plan.values())
    one_by_one = remove_filters(*prepared(name, norms=True, projections=True)[:3])
    counts = [models.multiply_adds(n, (32, 32, 3)) for n in (result.network, one_by_one.network)]
    assert counts[0] < counts[1]
    assert_trains_alike(result, network, variables)
