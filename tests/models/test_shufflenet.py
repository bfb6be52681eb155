"""ShuffleNets: what shuffles, pools and splits, and the ImageNet form against PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.models import layers
from kdjax.models.registry import FORMS
from kdjax.models.shufflenet_v1 import GroupedShuffleUnit
from kdjax.models.shufflenet_v2 import SplitShuffleUnit
from tests.models.helpers import random_variables

X = np.random.default_rng(0).normal(size=(2, 6, 6, 8)).astype(np.float32)


def test_channel_shuffle_deals_out():
    x = np.arange(6.0).reshape(1, 1, 1, 6)
    np.testing.assert_array_equal(layers.channel_shuffle(x, 2).ravel(), [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(layers.channel_shuffle(x, 3).ravel(), [0, 2, 4, 1, 3, 5])
    np.testing.assert_array_equal(layers.channel_shuffle(x, 1), x)
    back = layers.channel_shuffle(layers.channel_shuffle(X, 2), X.shape[-1] // 2)
    np.testing.assert_array_equal(back, X)


def test_padding_of_pools():
    # Padding is never the largest, and counts as zeros in a mean.
    assert layers.max_pool(-np.abs(X) - 1, 3, 2, 1).max() < 0
    ones = np.ones((1, 4, 4, 1), np.float32)
    expected = np.array([[4, 6], [6, 9]]) / 9
    np.testing.assert_allclose(layers.average_pool(ones, 3, 2, 1)[0, ..., 0], expected, rtol=1e-6)


def test_average_pool_of_narrow_floats_sums_in_float32():
    x = np.full((1, 16, 16, 1), 1.0078125)  # exact in bfloat16, its partial sums are not
    assert layers.average_pool(jnp.asarray(x, jnp.bfloat16), 16, 16).item() == 1.0078125


def test_strided_unit_of_version_1_ends_with_its_pooled_input():
    unit = GroupedShuffleUnit(width=24, groups=2, stride=2)
    y = jax.jit(unit.apply)(random_variables(unit, X), X)
    assert y.shape == (2, 3, 3, 24)
    pooled = np.maximum(layers.average_pool(X, 3, 2, 1), 0)
    np.testing.assert_allclose(y[..., 16:], pooled, rtol=1e-6)


def test_unit_of_version_2_keeps_half_of_its_input():
    unit = SplitShuffleUnit(width=8)
    y = jax.jit(unit.apply)(random_variables(unit, X), X)
    np.testing.assert_array_equal(y[..., ::2], X[..., :4])
    assert np.abs(y[..., 1::2] - X[..., 4:]).max() > 0.1


@pytest.mark.parametrize(
    ("name", "parameters"), [("05x", 1_366_792), ("1x", 2_278_604), ("15x", 3_503_624)]
)
def test_published_parameter_counts(name, parameters):
    module = models.create(f"shufflenetv2_{name}_imagenet", num_classes=1000)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert models.parameter_count(shapes["params"]) == parameters


def test_small_images_for_the_imagenet_form():
    module = models.create("shufflenetv2_05x_imagenet", num_classes=10)
    with pytest.raises(UserError, match=r"31x32 pixels .* stride of 32"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 31, 32, 3)))


def test_pool_of_the_imagenet_form_is_a_stage_without_parameters():
    module = models.create("shufflenetv2_05x_imagenet", num_classes=10)
    images = jnp.zeros((1, 64, 64, 3))
    outputs, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), images, stop=1)
    )
    assert outputs.features["stage1"].shape == (1, 16, 16, 24)
    assert set(variables["params"]) == {"stem_conv", "stem_bn"}


@pytest.mark.parametrize("form", [entry.suffix for entry in FORMS.values() if entry.classifies])
def test_branches_of_the_imagenet_form(form):
    module = models.create(f"shufflenetv2_05x_imagenet_{form}", num_classes=10)
    outputs = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))[0]
    )
    assert outputs.branches
    for head in outputs.branches.values():
        assert head.embedding.shape == outputs.backbone.embedding.shape


def layered(**fields) -> models.Branched:
    """L-MCL's form for ImageNet, in which the first branch has two units per stage."""
    network = models.create("shufflenetv2_1x_imagenet", num_classes=5).clone(**fields)
    return models.lmcl_branches(network)


class TorchShuffleNet:
    """L-MCL's form for ImageNet in PyTorch, in evaluation mode, by the names of a state dict."""

    def __init__(self, state):
        self.torch = pytest.importorskip("torch")
        self.state = {name: self.torch.from_numpy(value) for name, value in state.items()}

    def layer(self, x, conv, norm, stride=1):
        weight = self.state[f"{conv}.weight"]
        groups, padding = x.shape[1] // weight.shape[1], weight.shape[-1] // 2
        x = self.torch.nn.functional.conv2d(x, weight, None, stride, padding, groups=groups)
        leaves = ("running_mean", "running_var", "weight", "bias")
        values = [self.state[f"{norm}.{leaf}"] for leaf in leaves]
        return self.torch.nn.functional.batch_norm(x, *values)

    def unit(self, x, name, first):
        def run(x, number, stride=1):
            return self.layer(x, f"{name}.conv{number}", f"{name}.bn{number}", stride)

        if first:
            kept = run(run(x, 1, 2), 2).relu()
            made = run(run(run(x, 3).relu(), 4, 2), 5).relu()
        else:
            kept, x = x.chunk(2, 1)
            made = run(run(run(x, 1).relu(), 2), 3).relu()
        return self.torch.stack([kept, made], 2).flatten(1, 2)

    def stages(self, x, names, blocks):
        for name, units in zip(names, blocks, strict=True):
            for index in range(units):
                x = self.unit(x, f"{name}.{index}", first=index == 0)
            yield x

    def head(self, x, conv, norm, classifier):
        x = self.layer(x, conv, norm).relu().mean((2, 3))
        return x @ self.state[f"{classifier}.weight"].T + self.state[f"{classifier}.bias"]

    def __call__(self, images, blocks):
        x = self.torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        x = self.layer(x, "backbone.conv1", "backbone.bn1", stride=2).relu()
        maps = [self.torch.nn.functional.max_pool2d(x, 3, 2, 1)]
        maps += self.stages(maps[0], [f"backbone.layer{n}" for n in (1, 2, 3)], blocks)
        logits = [self.head(maps[3], "backbone.conv2", "backbone.bn2", "backbone.linear")]
        for branch, sizes in ((1, (2, 2, 2)), (2, blocks[1:]), (3, blocks[2:])):
            prefix, last = f"auxiliary_classifier.block_extractor{branch}", len(sizes)
            names = [f"{prefix}.{place}" for place in range(last)]
            *_, x = self.stages(maps[branch - 1], names, sizes)
            head = (f"{prefix}.{last}", f"{prefix}.{last + 1}", f"auxiliary_classifier.fc{branch}")
            logits.append(self.head(x, *head))
        return maps, logits


def test_imagenet_form_against_torch():
    blocks = (2, 3, 2)
    module = layered(widths=(24, 8, 12, 16), final_width=10, blocks=(1, *blocks))
    images = np.random.default_rng(1).normal(size=(2, 96, 64, 3)).astype(np.float32)
    variables = random_variables(module, images)
    state = interop.export_state_dict(module, variables)
    assert interop.import_state_dict(module, state)[1].dialect == "L-MCL"
    maps, logits = TorchShuffleNet(state)(images, blocks)

    outputs = jax.jit(module.apply)(variables, images)
    for actual, expected in zip(outputs.backbone.features.values(), maps, strict=True):
        expected = expected.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())
    heads = [outputs.backbone, *outputs.branches.values()]
    for actual, expected in zip(heads, logits, strict=True):
        expected = expected.numpy()
        np.testing.assert_allclose(actual.logits, expected, atol=1e-5 * np.abs(expected).max())
