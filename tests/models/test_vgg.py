"""VGG: where it pools, and what follows from that for its parts and branches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from tests.models.helpers import assert_equal, random_variables

WIDTHS = (4, 4, 8, 8, 8)


def vgg(**fields) -> models.VGG:
    return models.VGG(num_classes=5, widths=WIDTHS, **fields)


def max_pool_vgg(**fields) -> models.MaxPoolVGG:
    return models.MaxPoolVGG(num_classes=5, widths=WIDTHS, **fields)


def images(height: int, width: int | None = None) -> np.ndarray:
    shape = (2, height, width or height, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def sizes(module, *shape: int) -> list[tuple[int, int]]:
    """Height and width of the feature map of every stage, for images of this height and width."""
    x = jnp.zeros((1, *shape, 3))
    outputs, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x))
    return [feature.shape[1:3] for feature in outputs.features.values()]


@pytest.mark.parametrize(
    ("pixels", "last"), [(8, 1), (32, 4), (40, 5), (63, 7), (64, 4), (96, 6), (224, 14)]
)
def test_last_pool_from_64_pixels_on(pixels, last):
    maps = sizes(vgg(), pixels, pixels)
    assert maps == [(side, side) for side in (pixels, pixels // 2, pixels // 4, last)]


def test_last_pool_looks_at_the_shorter_side():
    assert sizes(vgg(), 128, 32)[-1] == (16, 4)
    assert sizes(vgg(), 128, 64)[-1] == (8, 4)


def test_last_pool_can_be_fixed():
    assert sizes(vgg(last_pool=False), 64, 64)[-1] == (8, 8)
    assert sizes(vgg(last_pool=True), 32, 32)[-1] == (2, 2)


@pytest.mark.parametrize("pixels", [32, 64])
def test_parts_equal_the_whole(pixels):
    module, x = vgg(), images(pixels)
    variables = random_variables(module, x)
    run = jax.jit(module.apply, static_argnames=("start", "stop"))
    whole = run(variables, x)
    for cut in (1, 2, 3, 4):
        early = run(variables, x, stop=cut)
        late = run(variables, early.features[f"stage{cut}"], start=cut)
        assert_equal(late._replace(features=early.features | late.features), whole)


def test_extra_stage_keeps_the_resolution():
    x = jnp.zeros((1, 64, 64, 3))
    module = vgg(extra_stages=1)
    outputs, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x))
    assert outputs.features["stage5"].shape == outputs.features["stage4"].shape == (1, 4, 4, 8)
    assert variables["params"].keys() >= {"stage5_block0", "stage5_block1"}


def test_convolutions_have_biases_that_start_at_zero():
    params = vgg().init(jax.random.key(0), images(8), stop=1)["params"]
    bias = params["stage1_block0"]["conv1"]["bias"]
    np.testing.assert_array_equal(bias, np.zeros(WIDTHS[0]))


def test_max_pool_vgg_pools_after_every_block():
    assert sizes(max_pool_vgg(), 32, 32) == [(side, side) for side in (16, 8, 4, 2, 1)]
    assert sizes(max_pool_vgg(extra_stages=1), 64, 64)[-2:] == [(2, 2), (2, 2)]


def test_max_pool_vgg_embeds_its_last_map():
    module, x = max_pool_vgg(), images(32)
    outputs = jax.jit(module.apply)(random_variables(module, x), x)
    last = outputs.features["stage5"]
    assert last.shape == (2, 1, 1, 8)
    np.testing.assert_array_equal(outputs.embedding, last[:, 0, 0])


@pytest.mark.parametrize(("module", "stride"), [(vgg(), 8), (max_pool_vgg(), 32)])
def test_images_smaller_than_the_stride(module, stride):
    pixels = stride - 1
    with pytest.raises(
        UserError, match=rf"{pixels}x{pixels} pixels .* stride of {stride}"
    ) as error:
        sizes(module, pixels, pixels)
    assert "\n" not in str(error.value)


def test_names_of_the_two_variants_are_not_mixed_up():
    module = models.create("vgg16_maxpool", num_classes=5).clone(widths=WIDTHS)
    state = interop.export_state_dict(module, random_variables(module, images(32)))
    with pytest.raises(UserError, match=r"missing: block0\."):
        interop.import_state_dict(models.create("vgg16", num_classes=5).clone(widths=WIDTHS), state)
