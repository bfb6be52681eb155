"""Every operation that ONNX files are made of, against JAX."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import onnx as library
import pytest
from jax import lax

from kdjax.interop import onnx

SHAPE = (5, 6, 4)
CHOSEN = np.array([3, 0, 0, 2])
KERNEL = np.random.default_rng(0).normal(size=(3, 2, 2, 6)).astype(np.float32)
MATRIX = KERNEL.reshape(-1, 9)[:4]


def convolution(x, **options):
    return lax.conv_general_dilated(
        x,
        KERNEL,
        options.pop("window_strides", (2, 1)),
        ((1, 0), (2, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
        **options,
    )


def pooled(x, start, operation, window=(1, 3, 2, 1), **options):
    padding = ((0, 0), (1, 1), (0, 1), (0, 0))
    return lax.reduce_window(x, start, operation, window, (1, 2, 2, 1), padding, **options)


FUNCTIONS = {
    "numbers": lambda x: jnp.exp(-jnp.abs(x)) - jnp.minimum(x, 0.5) / (2 + jnp.tanh(x)),
    "roots": lambda x: jnp.sqrt(jnp.square(x) + 1) + lax.rsqrt(x**4 + 1) + jnp.log(x**2 + 1),
    "rectifiers": lambda x: jax.nn.relu(x) + jnp.maximum(x, 0.3) + jax.nn.sigmoid(x),
    "same": lambda x: lax.stop_gradient(x) + x.astype(jnp.float32),
    "constants": lambda x: x * jnp.arange(4.0) + jnp.arange(6.0)[:, None],
    "selection": lambda x: jnp.where(np.array([True, False, True, True]), x, 7.0),
    "convolution": lambda x: convolution(x, rhs_dilation=(1, 2)),
    "after a convolution": lambda x: convolution(x).sum(2) * jnp.arange(6.0),
    "kernel of images": lambda x: lax.conv_general_dilated(
        x,
        x.sum((0, 1, 2)).reshape(1, 1, 4, 1),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "matrix product": lambda x: x.mean((1, 2)) @ MATRIX,
    "maximum pooling": lambda x: pooled(x, -jnp.inf, lax.max),
    "mean pooling": lambda x: pooled(x, 0.0, lax.add) / 6,
    "softmax": lambda x: jax.nn.softmax(x, axis=(1, 2)),
    "softmax after a convolution": lambda x: jax.nn.softmax(convolution(x), axis=-1),
    "gate": lambda x: convolution(x) * jax.nn.sigmoid(convolution(x).mean((1, 2)))[:, None, None],
    "repetition": lambda x: jnp.broadcast_to(x.mean(1)[:, None], x.shape),
    "shuffle": lambda x: x.reshape(*x.shape[:3], 2, 2).swapaxes(3, 4).reshape(x.shape),
    "transposition": lambda x: convolution(x).transpose(0, 3, 1, 2),
    "concatenation": lambda x: jnp.concatenate([convolution(x), 2 * convolution(x)], -1),
    "padding": lambda x: jnp.pad(x, ((0, 0), (0, 0), (2, 0), (0, 3)), constant_values=0.5),
    "strides": lambda x: x[:, ::2, 1::3],
    "slices": lambda x: lax.slice_in_dim(convolution(x), 1, 3, axis=3),
    "chosen channels": lambda x: convolution(x)[..., CHOSEN],
    "backwards": lambda x: x[:, :, np.arange(5, -1, -1)],
    "axes of one": lambda x: x[:, :, :1].squeeze(2),
}


def operations(function, shape=SHAPE) -> collections.Counter:
    graph = library.load_from_string(onnx.convert(function, shape)).graph
    return collections.Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations(name, tmp_path):
    function = FUNCTIONS[name]
    (tmp_path / "x.onnx").write_bytes(onnx.convert(function, SHAPE))
    session = onnx.Session(tmp_path / "x.onnx")
    for count in (1, 3):
        images = np.random.default_rng(count).normal(size=(count, *SHAPE)).astype(np.float32)
        expected = np.asarray(jax.jit(function)(images))
        actual = session(images)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6)


REFUSED = {
    "sort": (lambda x: jnp.sort(x), "sort has no counterpart"),
    "loops": (lambda x: lax.fori_loop(0, 3, lambda _, y: 2 * y, x), "scan has no counterpart"),
    "holes": (lambda x: convolution(x, window_strides=(1, 1), lhs_dilation=(2, 1)), "conv_general"),
    "windows": (
        lambda x: pooled(x, -jnp.inf, lax.max, window_dilation=(1, 2, 1, 1)),
        "reduce_window_max in this form",
    ),
    "pooled channels": (lambda x: pooled(x, 0.0, lax.add, (1, 2, 2, 3)), "reduce_window_sum in"),
    "other products": (lambda x: jnp.einsum("bhwc,bhwc->bhw", x, x), "dot_general in this form"),
    "other types": (lambda x: x.astype(jnp.float16), "convert_element_type in this form"),
    "diagonals": (lambda x: x[:, np.arange(4), np.arange(4)], "gather in this form"),
    "chosen by the image": (
        lambda x: lax.dynamic_slice_in_dim(x, jnp.argmax(x[0, 0, 0]), 2, axis=1),
        "has no counterpart",
    ),
    "holes of padding": (
        lambda x: lax.pad(x, 0.0, ((0, 0, 0), (1, 1, 1), *((0, 0, 0),) * 2)),
        "pad",
    ),
    "two free axes": (
        lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], x.shape[0], *SHAPE)),
        "in",
    ),
    "a part of the batch": (lambda x: x[:1] + x, "gather in this form"),
    "constants as images": (
        lambda x: jnp.concatenate([x, jnp.broadcast_to(np.ones(4, "f4"), x.shape)], -1),
        "concatenate in this form",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    function, message = REFUSED[name]
    with pytest.raises(onnx.Unsupported, match=message):
        onnx.convert(function, SHAPE)


def test_feature_maps_are_transposed_once():
    def network(x):
        y = jax.nn.relu(convolution(x) * jnp.arange(6.0) + 1)
        y = y + jnp.pad(convolution(x), ((0, 0),) * 4)
        return jnp.concatenate([y, y], -1).mean((1, 2)) @ np.ones((12, 3), np.float32)

    found = operations(network)
    assert found["Transpose"] == 1 and found["Relu"] == 1 and found["Conv"] == 2


def test_what_depends_on_constants_alone_is_computed():
    mean = np.ones(4, np.float32)

    def normalized(x):
        return x * lax.rsqrt(jnp.sum(mean) + 1e-5) + jax.nn.softmax(mean)

    assert set(operations(normalized)) == {"Mul", "Add", "Identity"}
