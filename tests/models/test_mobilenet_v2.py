"""MobileNetV2: what makes it HSAKD's variant."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from tests.models.helpers import assert_equal, random_variables

SMALL = models.MobileNetV2(num_classes=5, width=0.25, expansion=2)
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


def init(module, pixels: int = 32, **kwargs):
    x = jnp.zeros((1, pixels, pixels, 3))
    return jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x, **kwargs))


def test_parts_equal_the_whole():
    variables = random_variables(SMALL, IMAGES)
    run = jax.jit(SMALL.apply, static_argnames=("start", "stop"))
    whole = run(variables, IMAGES)
    early = run(variables, IMAGES, stop=3)
    late = run(variables, early.features["stage3"], start=3)
    assert_equal(late._replace(features=early.features | late.features), whole)


@pytest.mark.parametrize(
    ("width", "channels", "embedding"),
    [
        (0.5, (12, 16, 48, 160), 1280),
        (0.75, (18, 24, 72, 240), 1280),
        (1.0, (24, 32, 96, 320), 1280),
        (1.4, (33, 44, 134, 448), 1792),  # rounded down, not to multiples of 8
    ],
)
def test_widths(width, channels, embedding):
    outputs, _ = init(models.MobileNetV2(num_classes=5, width=width))
    shapes = [feature.shape for feature in outputs.features.values()]
    assert shapes == [
        (1, side, side, count) for side, count in zip((32, 16, 8, 4), channels, strict=True)
    ]
    assert outputs.embedding.shape == (1, embedding)


def test_first_block_has_an_expansion_convolution():
    _, variables = init(models.create("mobilenetv2_half", num_classes=5))
    first, second = (variables["params"][f"stage1_block{index}"] for index in range(2))
    assert first["expand_conv"]["kernel"].shape == (1, 1, 16, 16)
    assert second["expand_conv"]["kernel"].shape == (1, 1, 8, 48)
    assert second["depthwise_conv"]["kernel"].shape == (3, 3, 1, 48)


def test_activations_are_not_cut_at_six():
    outputs = jax.jit(SMALL.apply)(random_variables(SMALL, IMAGES), 100 * IMAGES)
    assert outputs.embedding.min() >= 0 and outputs.embedding.max() > 6


def test_extra_stage_keeps_resolution_and_width():
    outputs, variables = init(SMALL.clone(extra_stages=1))
    assert outputs.features["stage5"].shape == outputs.features["stage4"].shape == (1, 4, 4, 80)
    first = variables["params"]["stage5_block0"]
    assert first["expand_conv"]["kernel"].shape == (1, 1, 80, 160)


def test_branches_follow_the_width():
    branched = models.hsakd_branches(SMALL)
    x = jnp.zeros((1, 32, 32, 3))
    outputs, _ = jax.eval_shape(lambda: branched.init_with_output(jax.random.key(0), x))
    for branch in outputs.branches.values():
        assert branch.logits.shape == (1, 20)
        assert list(branch.features.values())[-1].shape == (1, 4, 4, 80)
