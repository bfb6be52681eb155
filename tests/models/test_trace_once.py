"""Networks whose equal blocks are traced once compute what others do."""

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.models.residual_blocks import ResidualBlock
from tests.tiny_runs import networks  # noqa: F401


@pytest.fixture
def traced(monkeypatch):
    """A function that traces a network in training; returns how many BatchNorms it went through."""
    calls = []
    norm = ResidualBlock.norm
    monkeypatch.setattr(
        ResidualBlock, "norm", lambda self, *arguments: calls.append(1) or norm(self, *arguments)
    )

    def count(network, images):
        variables = jax.eval_shape(network.init, jax.random.key(0), images)
        calls.clear()
        jax.eval_shape(
            lambda variables, x: network.apply(variables, x, train=True, mutable=["batch_stats"]),
            variables,
            images,
        )
        return len(calls)

    return count


def test_equal_blocks_are_traced_once(traced):
    images = jax.ShapeDtypeStruct((3, 8, 8, 3), np.float32)
    network = models.create("resnet20", num_classes=4)
    assert traced(network, images) == 20
    once = traced(network.clone(trace_once=True), images)
    assert 0 < once <= 14  # of two kinds per stage, but for the first
    assert traced(network.clone(trace_once=True, num_classes=5), images) == 0


def test_equal_networks_are_traced_once(traced):
    images = jax.ShapeDtypeStruct((3, 8, 8, 3), np.float32)
    network, other = (
        models.create(name, num_classes=6).clone(trace_once=True)
        for name in ("resnet8", "resnet14")
    )
    assert traced(models.Cohort((network, other, network)), images) <= 9 + 6
    assert traced(models.Cohort((network, network, network)), images) == 0
    assert traced(models.Cohort((network, network), shared_stages=1), images) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("shared_stages", [0, 1])
def test_numbers_are_the_same(shared_stages):
    network = models.create("tiny", num_classes=4)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

    def run(network):
        cohort = models.Cohort((network, network), shared_stages)
        variables = cohort.init(jax.random.key(0), images)
        return variables, cohort.apply(variables, images, train=True, mutable=["batch_stats"])

    jax.tree.map(
        np.testing.assert_array_equal,
        jax.jit(lambda: run(network))(),
        jax.jit(lambda: run(network.clone(trace_once=True)))(),
    )
