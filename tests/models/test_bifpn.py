"""The feature pyramid: shapes, how maps meet, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.models import bifpn
from tests.models.helpers import IMAGES, assert_equal, random_variables, tiny

MAPS = {
    f"stage{number}": np.random.default_rng(number)
    .normal(size=(2, 16 // 2**number, 16 // 2**number, 2 * number))
    .astype(np.float32)
    for number in (1, 2, 3)
}


def pyramid_variables(module: models.BiFPN, **weights) -> dict:
    """Random variables in which the weights of sums are ones, or what is given."""
    variables = random_variables(module, MAPS)
    for name, leaf in variables["params"].items():
        if name.endswith("_weights"):
            variables["params"][name] = np.ones_like(leaf)
    variables["params"] |= {name: np.array(value, np.float32) for name, value in weights.items()}
    return variables


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (3, 2)])
def test_shapes(width, depth):
    module = models.Pyramid(tiny(), width=width, depth=depth)
    outputs, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), IMAGES, train=True)
    )
    assert set(variables["params"]) == {"backbone", "bifpn"}
    assert list(outputs.features) == ["stage1", "stage2", "stage3"]
    for name, x in outputs.backbone.features.items():
        assert outputs.features[name].shape == (*x.shape[:3], width * x.shape[-1])
    assert outputs.logits.shape == (4, 5)
    layers = variables["params"]["bifpn"]["top_down1"]
    assert len(layers) == 3 * depth


def test_backbone_is_the_network():
    module = models.Pyramid(tiny())
    variables = random_variables(module)
    own = {name: collection["backbone"] for name, collection in variables.items()}
    outputs = jax.jit(module.apply)(variables, IMAGES)
    assert_equal(outputs.backbone, jax.jit(tiny().apply)(own, IMAGES))


def test_every_map_sees_every_stage_through_the_weights():
    module = models.BiFPN(num_classes=5)
    run = jax.jit(lambda variables, maps: module.apply(variables, maps)[0])

    def influenced(variables, source):
        """The pyramid's maps that change with one of the network's."""
        changed = run(variables, MAPS | {source: MAPS[source] + 1})
        before = run(variables, MAPS)
        return {name for name in MAPS if np.abs(changed[name] - before[name]).max() > 1e-6}

    joined = pyramid_variables(module)
    assert all(influenced(joined, name) == set(MAPS) for name in MAPS)
    # A weight below zero cuts its input off: here what comes from above, on the way down.
    apart = pyramid_variables(module, top_down1_weights=[1, -2], top_down2_weights=[1, -2])
    assert influenced(apart, "stage3") == {"stage3"}


def test_all_weights_below_zero_are_finite():
    module = models.BiFPN(num_classes=5)
    variables = pyramid_variables(module, top_down1_weights=[-1, -1])

    @jax.jit
    @jax.value_and_grad
    def total(params):
        return module.apply(variables | {"params": params}, MAPS)[1].sum()

    value, gradients = total(variables["params"])
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("size", [4, 5, 8])
def test_downsampling_is_pooling_padded_with_zeros(size):
    x = np.random.default_rng(0).random((2, size, size, 3)).astype(np.float32)
    before, after = size % 2, 1
    padded = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    expected = windows[:, ::2, ::2].max((-2, -1))
    np.testing.assert_array_equal(bifpn._downsample(jnp.asarray(x)), expected)


def test_upsampling_repeats_pixels():
    x = np.arange(4.0).reshape(1, 2, 2, 1)
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(bifpn._upsample(jnp.asarray(x))[0, ..., 0], expected)


def test_maps_that_do_not_halve():
    module = models.Pyramid(tiny())
    with pytest.raises(UserError, match=r"9x9, 5x5, 3x3.*multiples of the network's") as error:
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 9, 9, 3)))
    assert "\n" not in str(error.value)


def test_bfloat16_keeps_logits_in_float32():
    module = models.Pyramid(tiny(dtype=jnp.bfloat16))
    outputs, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), IMAGES, train=True)
    )
    assert outputs.logits.dtype == jnp.float32
    assert all(x.dtype == jnp.bfloat16 for x in outputs.features.values())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_statistics_are_shared_by_devices():
    images = np.random.default_rng(1).normal(size=(8, 8, 8, 3))
    fields = {"dtype": jnp.float64}  # BatchNorm after BatchNorm amplifies rounding
    one, many = (models.Pyramid(tiny(axis_name=name, **fields)) for name in (None, "batch"))
    with jax.enable_x64(True):
        variables = random_variables(one)

    def run(module, images):
        return module.apply(variables, images, train=True, mutable=["batch_stats"])

    @jax.jit
    def both(images):
        split = images.reshape(2, 4, *images.shape[1:])
        return run(one, images), jax.vmap(lambda x: run(many, x), axis_name="batch")(split)

    with jax.enable_x64(True):
        (outputs, updates), (split_outputs, split_updates) = both(images)
    assert_equal(split_outputs.logits.reshape(outputs.logits.shape), outputs.logits)
    assert_equal(jax.tree.map(lambda leaf: leaf[0], split_updates), updates)


@pytest.mark.parametrize("depth", [1, 3])
def test_names_round_trip(depth):
    module = models.Pyramid(tiny(), width=2, depth=depth)
    variables = random_variables(module)
    state = interop.export_state_dict(module, variables)
    assert {"bifpn.fc.weight", "bifpn.layers.0.down_weight.1"} <= set(state)
    back, _ = interop.import_state_dict(module, state)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
