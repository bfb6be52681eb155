"""Operations through which channels are not followed: the filters stay, with a reason."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import compaction

X = jax.ShapeDtypeStruct((2, 5), jnp.float32)
IMAGES = jax.ShapeDtypeStruct((2, 4, 4, 4), jnp.float32)
A, B = jax.ShapeDtypeStruct((5, 6), jnp.float32), jax.ShapeDtypeStruct((6, 3), jnp.float32)
CONV = jax.ShapeDtypeStruct((3, 3, 4, 6), jnp.float32)
GROUPED = jax.ShapeDtypeStruct((3, 3, 3, 6), jnp.float32)


def conv(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, **options
    )


def scanned(x):
    return jax.lax.scan(lambda total, row: (total + row, row), jnp.zeros(6), x)[1]


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: jax.nn.relu(x), None),
        (lambda x: 2 * jax.nn.gelu(x) + 1, None),
        (
            lambda x: x.reshape(2, 2, 3).swapaxes(1, 2).reshape(2, 6),
            "'reshape' splits its channels",
        ),
        (lambda x: x[:, :3].sum(1, keepdims=True) * x, "'slice' of its channels"),
        (jax.nn.softmax, "over its channels"),
        (lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), "over its channels"),
        (lambda x: jnp.sort(x, -1), "goes through 'sort'"),
        (scanned, "goes through 'scan'"),
        (lambda x: x + jnp.arange(6.0), "'add' with values that have no channels"),
        (lambda x: (x @ x.T) @ x, "goes through 'dot_general'"),
        (lambda x: jnp.pad(x[:, :4], ((0, 0), (1, 1))), "of its channels"),
        (lambda x: jax.lax.rev(jax.nn.silu(x).T, (0,)).T, None),
    ],
)
def test_between_two_dense_layers(between, reason):
    def network(params, x):
        return between(x @ params["a"]) @ params["b"]

    link, last = compaction.trace_links(network, {"a": A, "b": B}, X)
    assert (reason or "") in link.reason
    assert bool(link.reason) == bool(reason)
    assert last.reason == "an output of the network"


def test_grouped_convolutions_stay():
    def network(params, images):
        x = conv(conv(images, params["a"]), params["b"], feature_group_count=2)
        return x.mean((1, 2)) @ params["c"]

    links = compaction.trace_links(network, {"a": CONV, "b": GROUPED, "c": B}, IMAGES)
    reasons = {link.name: link.reason for link in links}
    assert reasons["a"] == reasons["b"] == "a convolution of 2 groups"


def test_kernels_that_are_computed_stay():
    def network(params, x):
        return (x @ (params["a"] + params["low"] @ params["rank"])) @ params["b"]

    shapes = {"low": (5, 2), "rank": (2, 6)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    links = compaction.trace_links(network, {"a": A, "b": B, **params}, X)
    assert [link.name for link in links] == ["b"]


def test_layer_that_is_called_twice():
    """Constants of one call cannot move into a bias that two calls share."""

    def network(params, x):
        def layer(x):
            return jnp.exp(x @ params["a"]) @ params["b"] + params["bias"]

        return (layer(x) + layer(2 * x)) @ params["c"]

    random = np.random.default_rng(0)
    shapes = {"a": (5, 6), "b": (6, 3), "bias": (3,), "c": (3, 2)}
    params = {name: random.normal(size=shape) for name, shape in shapes.items()}
    params["a"][:, 4] = 0  # exp makes 1 of it
    links = compaction.trace_links(network, params, X)
    assert compaction.cut(params, links).filters == {}
    smaller = compaction.cut(params, links, exact=False)
    assert smaller.inexact == {
        "b": "constants up to 1, and no bias or BatchNorm behind b to move to"
    }
    assert smaller.filters == {"a": 5}
