"""BatchNorm, convolution and the classifier's start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import layers
from kdjax.models.convolution import channel_sums, native

# One channel, four values: mean 3, biased variance 5, unbiased variance 20 / 3.
KNOWN = np.array([0.0, 2.0, 4.0, 6.0], np.float32).reshape(4, 1, 1, 1)


def apply_batch_norm(module, x, **kwargs):
    @jax.jit
    def run(x):
        return module.apply(module.init(jax.random.key(0), x), x, **kwargs)

    return run(x)


def test_batch_norm_known_numbers():
    module = layers.BatchNorm()
    y, updates = apply_batch_norm(module, KNOWN, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (KNOWN - 3) / np.sqrt(5 + 1e-5), rtol=1e-6)
    statistics = updates["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], [0.1 * 3], rtol=1e-6)
    np.testing.assert_allclose(statistics["var"], [0.9 + 0.1 * 20 / 3], rtol=1e-6)


def test_batch_norm_evaluation_uses_running_statistics():
    variables = {
        "params": {"scale": np.array([2.0]), "bias": np.array([1.0])},
        "batch_stats": {"mean": np.array([4.0]), "var": np.array([9.0])},
    }
    y = layers.BatchNorm(epsilon=0.0).apply(variables, KNOWN)
    np.testing.assert_allclose(y, 2 * (KNOWN - 4) / 3 + 1, rtol=1e-6)


def test_batch_norm_init_leaves_statistics_alone():
    variables = layers.BatchNorm(axis_name="batch").init(jax.random.key(0), KNOWN, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], [0])
    np.testing.assert_array_equal(variables["batch_stats"]["var"], [1])


def test_batch_norm_constant_channel_is_finite():
    x = jnp.full((8, 4, 4, 3), 1234.567)

    def total(x):
        module = layers.BatchNorm()
        return apply_batch_norm(module, x, train=True, mutable=["batch_stats"])[0].sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("devices", [1, 4])
def test_batch_moments_are_accurate_far_from_zero(devices):
    """Values of a thousand deviations from zero, in other places on every device."""
    shifts = 1000 + np.arange(4).repeat(4)[:, None, None, None]
    x = np.random.default_rng(0).normal(shifts, 1.0, (16, 3, 3, 5)).astype(np.float32)
    split = x.reshape(devices, 16 // devices, *x.shape[1:])
    mean, var, count = jax.vmap(
        lambda x: layers.batch_moments(x, "batch"), axis_name="batch", out_axes=(0, 0, None)
    )(split)
    exact = x.astype(np.float64)
    assert count == 16 * 3 * 3
    np.testing.assert_allclose(mean[0], exact.mean((0, 1, 2)), rtol=1e-6)
    # A device's mean is rounded to 3e-5 here. The mean of squares less the square is 0.1 off.
    np.testing.assert_allclose(var[0], exact.var((0, 1, 2)), rtol=2e-4)


def test_synchronized_batch_norm_equals_one_device():
    x = np.random.default_rng(0).normal(2.0, 3.0, (16, 3, 3, 5)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    one, many = layers.BatchNorm(), layers.BatchNorm(axis_name="batch")
    variables = one.init(jax.random.key(0), x)

    def step(module, x, weights):
        def loss(x):
            y, updates = module.apply(variables, x, train=True, mutable=["batch_stats"])
            return (y * weights).sum(), (y, updates)

        return jax.grad(loss, has_aux=True)(x)

    def split(array):
        return array.reshape(4, 4, *array.shape[1:])

    @jax.jit
    def both(x, weights):
        mapped = jax.vmap(lambda *args: step(many, *args), axis_name="batch")
        return step(one, x, weights), mapped(split(x), split(weights))

    (gradient, (y, updates)), (split_gradient, (split_y, split_updates)) = both(x, weights)
    np.testing.assert_allclose(split_y.reshape(x.shape), y, atol=2e-6)
    np.testing.assert_allclose(split_gradient.reshape(x.shape), gradient, atol=2e-6)
    for device in range(4):
        jax.tree.map(
            lambda actual, expected, device=device: np.testing.assert_allclose(
                actual[device], expected, rtol=1e-5
            ),
            split_updates,
            updates,
        )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_batch_norm_dtypes(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(300.0, 1.0, (64, 4, 4, 2)), dtype)
    module = layers.BatchNorm(dtype=dtype)
    y, updates = apply_batch_norm(module, x, train=True, mutable=["batch_stats"])
    assert y.dtype == dtype
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
    # The statistics are those of the narrow values, without another rounding.
    values = np.asarray(x, np.float64)
    expected = 0.9 + 0.1 * values.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(updates["batch_stats"]["var"], expected, rtol=2e-2)


def test_batch_norm_keeps_float32_statistics_in_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(KNOWN, jnp.float64)
        module = layers.BatchNorm(dtype=jnp.float64)
        y, updates = apply_batch_norm(module, x, train=True, mutable=["batch_stats"])
        assert y.dtype == jnp.float64
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
        np.testing.assert_allclose(y, (KNOWN - 3.0) / np.sqrt(5 + 1e-5), rtol=1e-14)


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_conv_pads_as_torch(kernel_size, stride):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    module = layers.conv(4, kernel_size, stride)
    variables = module.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    pad = kernel_size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))
    expected = np.einsum("bhwcij,ijco->bhwo", windows[:, ::stride, ::stride], kernel)
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


def test_starting_weights():
    x = jnp.zeros((1, 4, 4, 64))
    kernel = layers.conv(128).init(jax.random.key(0), x)["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    classifier = layers.dense(64, 100).init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
    for leaf in (classifier["kernel"], classifier["bias"]):
        assert 0.12 < np.abs(leaf).max() <= 0.125
    np.testing.assert_allclose(classifier["kernel"].std(), 0.125 / np.sqrt(3), rtol=0.02)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs alone")
def test_batch_norm_by_the_library(monkeypatch):
    """Sums by the compiled library: outputs, statistics and gradients as XLA's."""
    if not native.loads():
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(native, "available", lambda: True)
    norm = layers.BatchNorm()
    x, y = 3 + 2 * np.random.default_rng(0).normal(size=(2, 3, 11, 13, 37)).astype(np.float32)
    variables = {
        "params": {"scale": np.linspace(1, 2, 37), "bias": np.linspace(-1, 1, 37)},
        "batch_stats": {"mean": np.zeros(37), "var": np.ones(37)},
    }
    variables = jax.tree.map(np.float32, variables)

    @jax.jit
    def run(params, x):
        def loss(params, x):
            inputs = {"params": params, "batch_stats": variables["batch_stats"]}
            outputs, state = norm.apply(inputs, x, True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(outputs) * y), (outputs, state)

        results = []
        for smallest in (1, 1 << 40):
            monkeypatch.setattr(channel_sums, "SMALLEST", smallest)
            results.append(jax.grad(loss, (0, 1), has_aux=True)(params, x))
        return results

    for actual, expected in zip(*map(jax.tree.leaves, run(variables["params"], x)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    text = [str(jax.make_jaxpr(lambda x: norm.apply(variables, x, True, mutable=True)[0])(x))]
    monkeypatch.setattr(channel_sums, "SMALLEST", 1)
    text.append(str(jax.make_jaxpr(lambda x: norm.apply(variables, x, True, mutable=True)[0])(x)))
    assert ["kdjax_moments" in each for each in text] == [False, True]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs alone")
def test_moments_by_the_library_are_accurate_far_from_zero():
    if not native.loads():
        pytest.skip("no C++ compiler")
    x = (1000 + np.random.default_rng(0).normal(size=(5000, 3))).astype(np.float32)
    mean, var = native.sums("moments", x)
    np.testing.assert_allclose(mean, x.mean(0, np.float64), rtol=1e-7)
    np.testing.assert_allclose(var, x.var(0, np.float64), rtol=1e-5)
