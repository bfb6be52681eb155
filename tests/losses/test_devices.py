"""Mutual contrast on N devices equals mutual contrast on one with the same global batch."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from kdjax import losses
from kdjax.losses.global_batch import gathered

DEVICES, PER_DEVICE, FEATURES = 4, 3, 6
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(DEVICES * PER_DEVICE, FEATURES)).astype(np.float32)
WEIGHTS = list(RANDOM.normal(size=(2, FEATURES, 5)).astype(np.float32))  # one per network
# A class's images lie on different devices, and one class has a single image.
LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 4])


def terms(weights, inputs, labels, axis_name=None, gather_gradient=True):
    """The four means `[4]` over this device's images, of unit vectors made with `weights`."""
    outputs = [inputs @ each for each in weights]
    embeddings = [each / jnp.linalg.norm(each, axis=-1, keepdims=True) for each in outputs]
    values = losses.mutual_contrast(
        embeddings,
        labels,
        temperature=0.1,
        kd_temperature=3.0,
        axis_name=axis_name,
        gather_gradient=gather_gradient,
    )
    return jnp.stack([value.mean() for value in values])


def on_device(weights, inputs, labels, gather_gradient=True):
    """What one of several devices computes: values `[4]` and gradients `[4, ...]`, averaged."""
    function = functools.partial(terms, axis_name="batch", gather_gradient=gather_gradient)
    values = function(weights, inputs, labels)
    gradients = jax.jacrev(function)(weights, inputs, labels)
    return jax.lax.pmean((values, gradients), "batch")


@functools.cache
def one_device():
    both = jax.jit(lambda *inputs: (terms(*inputs), jax.jacrev(terms)(*inputs)))
    return both(WEIGHTS, INPUTS, LABELS)


def sliced(x):
    return x.reshape(DEVICES, PER_DEVICE, *x.shape[1:])


def with_vmap(gather_gradient=True):
    mapped = jax.vmap(
        functools.partial(on_device, gather_gradient=gather_gradient),
        in_axes=(None, 0, 0),
        axis_name="batch",
    )
    every = jax.jit(mapped)(WEIGHTS, sliced(INPUTS), sliced(LABELS))
    return jax.tree.map(lambda x: x[0], every)


def with_pmap():
    mapped = jax.pmap(on_device, "batch", in_axes=(None, 0, 0), out_axes=None)
    return mapped(WEIGHTS, sliced(INPUTS), sliced(LABELS))


def with_shard_map():
    mapped = jax.shard_map(
        on_device,
        mesh=Mesh(np.asarray(jax.devices()), ("batch",)),
        in_specs=(PartitionSpec(), PartitionSpec("batch"), PartitionSpec("batch")),
        out_specs=PartitionSpec(),
        check_vma=False,  # else the gradients of the replicated weights come summed over devices
    )
    return jax.jit(mapped)(WEIGHTS, INPUTS, LABELS)


def assert_equal(actual, expected):
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(compare, actual, expected)


def check_real_devices():
    assert jax.device_count() == DEVICES
    expected = one_device()
    assert_equal(with_pmap(), expected)
    assert_equal(with_shard_map(), expected)


def test_mapped_axis_gives_the_values_and_gradients_of_the_global_batch():
    assert_equal(with_vmap(), one_device())


def test_devices_give_the_values_and_gradients_of_the_global_batch():
    if jax.device_count() == DEVICES:
        check_real_devices()
        return
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(DEVICES), "JAX_PLATFORMS": "cpu"}
    program = "from tests.losses import test_devices as t; t.check_real_devices()"
    command = [sys.executable, "-W", "error", "-c", program]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    subprocess.run(command, check=True, env=environment, cwd=root, timeout=300)


def test_gathering_without_gradient_changes_gradients_only():
    values, gradients = with_vmap(gather_gradient=False)
    expected_values, expected_gradients = one_device()
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    for actual, expected in zip(gradients, expected_gradients, strict=True):
        difference = np.abs(actual - expected).max((1, 2))
        assert (difference > 0.01 * np.abs(expected).max((1, 2))).all()


def test_gathering_without_gradient_keeps_the_gradient_of_the_own_columns():
    """One device has nobody else's embeddings: there the two forms have the same gradient."""

    def gradients(gather_gradient):
        function = functools.partial(terms, axis_name="batch", gather_gradient=gather_gradient)
        mapped = jax.vmap(jax.jacrev(function), in_axes=(None, 0, 0), axis_name="batch")
        return jax.jit(mapped)(WEIGHTS, INPUTS[None], LABELS[None])

    assert_equal(gradients(False), gradients(True))


@pytest.mark.parametrize("gather_gradient", [True, False])
def test_shard_map_with_its_checks(gather_gradient):
    mapped = jax.shard_map(
        lambda x, y: jax.lax.pmean(terms(WEIGHTS, x, y, "batch", gather_gradient), "batch"),
        mesh=Mesh(np.asarray(jax.devices()[:1]), ("batch",)),
        in_specs=(PartitionSpec("batch"), PartitionSpec("batch")),
        out_specs=PartitionSpec(),
    )
    assert_equal(jax.jit(mapped)(INPUTS, LABELS), one_device()[0])


def test_gathered_arrays_keep_their_bits_and_types():
    tree = {
        "index": np.array([[-(2**31), 2**31 - 1], [-1, 4095], [4096, 0], [7, -4097]], np.int32),
        "class": np.array([255, 0, 1, 128], np.uint8),
        "half": np.array([1.0, -2.5, np.inf, 0.1], jnp.bfloat16).reshape(4, 1, 1),
        "single": RANDOM.normal(size=(4, 3)).astype(np.float32),
    }
    devices = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), tree)
    mapped = jax.vmap(lambda x: gathered(x, "batch"), axis_name="batch")
    for device in range(2):
        every = jax.tree.map(lambda x, number=device: x[number], mapped(devices))
        jax.tree.map(np.testing.assert_array_equal, every, tree)
        assert jax.tree.map(lambda x: x.dtype, every) == jax.tree.map(lambda x: x.dtype, tree)
