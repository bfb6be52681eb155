"""The policies by name: nothing but an image's key decides what becomes of it."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from kdjax import data
from kdjax.data import policies
from kdjax.errors import UserError

SIDE = 16
DEVICES = 4
QUICK = ["augmix", "cutout", "trivial_augment"]  # the others are alike


def marked_slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in sorted(names)]


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def batch():
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.integers(0, 256, (24, SIDE, SIDE, 3), np.uint8))


@functools.cache
def compiled(*names, fill=0):
    return jax.jit(policies.create(names, fill=fill))


def holes(made, images):
    """[B, H, W] of what has changed in any channel."""
    return (np.asarray(made) != np.asarray(images)).any(axis=-1)


@pytest.mark.parametrize("name", QUICK + marked_slow(*policies.POLICIES.keys() - QUICK))
def test_a_key_decides_wherever_its_image_is(name):
    """In another order, and 12 by 12 in another program, 24 images come out as before."""
    images, own, function = batch(), keys(24), compiled(name)
    made = np.asarray(function(own, images))
    assert made.shape == images.shape and made.dtype == np.uint8
    assert (made != images).any(axis=(1, 2, 3)).mean() > 0.3
    order = np.random.default_rng(0).permutation(24)
    halves = [np.asarray(function(own[part], images[part])) for part in (order[:12], order[12:])]
    np.testing.assert_array_equal(np.concatenate(halves), made[order])
    other = np.asarray(function(keys(24, seed=1), images))
    assert (other != made).any(axis=(1, 2, 3)).mean() > 0.3


def test_gray_images_are_those_of_three_equal_channels():
    gray = batch()[..., :1]
    made = compiled("trivial_augment")(keys(24), gray)
    expected = compiled("trivial_augment")(keys(24), jnp.repeat(gray, 3, axis=-1))
    np.testing.assert_array_equal(jnp.repeat(made, 3, axis=-1), expected)
    assert (np.asarray(made) != gray).any(axis=(1, 2, 3)).mean() > 0.3


@pytest.mark.parametrize("name", ["cutout", *marked_slow(*policies.POLICIES.keys() - {"cutout"})])
def test_the_same_without_jit(name):
    plain = policies.create((name,))(keys(24), batch())
    np.testing.assert_array_equal(plain, compiled(name)(keys(24), batch()))


def check_devices():
    assert jax.device_count() == DEVICES
    mesh = Mesh(np.asarray(jax.devices()), ("batch",))
    every = policies.create(tuple(policies.POLICIES))
    spread = jax.shard_map(
        every, mesh=mesh, in_specs=(PartitionSpec("batch"),) * 2, out_specs=PartitionSpec("batch")
    )
    found = jax.jit(spread)(keys(24), batch())
    np.testing.assert_array_equal(found, jax.jit(every)(keys(24), batch()))


@pytest.mark.slow
def test_devices_make_what_one_makes():
    if jax.device_count() == DEVICES:
        check_devices()
        return
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(DEVICES), "JAX_PLATFORMS": "cpu"}
    program = "from tests.data import test_policies as t; t.check_devices()"
    command = [sys.executable, "-W", "error", "-c", program]
    root = pathlib.Path(__file__).parents[2]
    subprocess.run(command, check=True, env=environment, cwd=root, timeout=300)


def test_policies_come_in_order(monkeypatch):
    monkeypatch.setattr(policies.POLICIES, "_entries", {})
    data.register_policy("add", lambda keys, images: images + 1)
    data.register_policy("double", lambda keys, images: images * 2)
    images = jnp.ones((1, 2, 2, 1), jnp.uint8)
    assert (policies.create(("add", "double"))(keys(1), images) == 4).all()
    assert (policies.create(("double", "add"))(keys(1), images) == 3).all()


def test_each_policy_has_keys_of_its_own():
    once, twice = (
        holes(compiled(*["cutout"] * times, fill=50)(keys(24), batch()), batch()).sum(axis=(1, 2))
        for times in (1, 2)
    )
    assert (twice > once).sum() > 12


def test_no_policies():
    assert policies.create(())(keys(24), batch()) is batch()


def test_unknown_policy():
    with pytest.raises(UserError, match=r"config\.data\.policies='randaugment'.*rand_augment"):
        policies.create(("cutout", "randaugment"))
    with pytest.raises(UserError, match=r"'mosaic' is unknown"):
        policies.create(("mosaic",))


def test_fill_must_be_a_color():
    with pytest.raises(OverflowError):
        policies.create(("cutout",), fill=256)(keys(24), batch())
    with pytest.raises(ValueError, match="broadcast"):
        policies.create(("cutout",), fill=(1, 2))(keys(24), batch())
