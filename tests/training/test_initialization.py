"""The program of the initial state draws equal shapes in loops, and the same values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import layers
from kdjax.models.initial_values import drawn, uniform, variance_scaling
from kdjax.training import initialization
from kdjax.tree import leaves

KEY = jax.random.key(3)
IMAGES = jnp.zeros((2, 4, 4, 3))


class Network(nn.Module):
    """Two equal convolutions, two others, two classifiers, and a parameter of another layer."""

    @nn.compact
    def __call__(self, x):
        for features in (4, 4, 4, 2):
            x = layers.BatchNorm()(layers.conv(features, 3)(x))
        x = nn.Dense(3)(x)
        return [layers.dense(3, 5, name=name)(x.mean((1, 2))) for name in ("first", "second")]


def initialize(key):
    """Parameters, the same scaled by what was drawn, and what is drawn from a drawn value."""
    params = Network().init(key, IMAGES)["params"]
    bits = params["first"]["bias"][0].view(jnp.uint32)
    again = drawn(layers.UNIFORM_INIT)(jax.random.fold_in(key, bits), (3, 4), jnp.float32)
    return {"params": params, "doubled": jax.tree.map(lambda x: 2 * x, params), "again": again}


@pytest.fixture(scope="module")
def traced():
    return jax.jit(initialize).trace(KEY)


def test_values_are_those_of_the_program_without_loops(traced):
    expected = leaves(traced.lower().compile()(KEY))
    actual = jax.jit(initialization.with_loops(traced.jaxpr))(KEY)
    for (path, value), array in zip(expected.items(), actual, strict=True):
        np.testing.assert_array_equal(array, value, err_msg=path)
    assert not np.array_equal(expected["params/Conv_1/kernel"], expected["params/Conv_2/kernel"])


def test_equal_draws_are_one_loop_and_networks_are_not_run(traced):
    equations = jax.make_jaxpr(initialization.with_loops(traced.jaxpr))(KEY).jaxpr.eqns
    turns = sorted(
        equation.params["length"] for equation in equations if equation.primitive.name == "scan"
    )
    # The kernels [3, 3, 4, 4]; kernels and biases of the classifiers; the keys of all.
    assert turns == [2, 2, 2, 9]
    names = {equation.primitive.name for equation in traced.jaxpr.jaxpr.eqns}
    assert "conv_general_dilated" in names
    assert not {"conv_general_dilated", "dot_general"} & {e.primitive.name for e in equations}


def test_kernels_are_those_of_flax():
    forms = [(2.0, "fan_out", "normal"), (2.0, "fan_in", "normal"), (1 / 3, "fan_in", "uniform")]
    shape = (3, 1, 4, 6)

    @jax.jit
    def draw(key):
        flax = [nn.initializers.variance_scaling(*form)(key, shape) for form in forms]
        flax.append(jax.random.uniform(key, shape, jnp.float32, -0.3, 0.3))
        ours = [variance_scaling(*form) for form in forms] + [uniform(0.3)]
        return flax, [drawn(initializer)(key, shape) for initializer in ours]

    for expected, actual in zip(*draw(KEY), strict=True):
        np.testing.assert_array_equal(actual, expected)
