"""HCGNets: the gates by hand, what grows where, and the names of branches."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import mapping, state_dict_entries
from kdjax.interop import torch as interop
from kdjax.models.hcgnet import Gates
from kdjax.models.linear import Conv
from tests.models.helpers import random_variables


def hcgnet(**fields) -> models.HCGNet:
    return models.HCGNet(num_classes=5, **({"blocks": (1, 2, 1), "growth": (4, 8, 12)} | fields))


def init_shapes(module, height: int = 32, width: int = 32):
    x = jnp.zeros((2, height, width, 3))
    return jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class ByHand:
    """The gates in evaluation mode, in plain float64 numpy."""

    def __init__(self, variables):
        self.params = jax.tree.map(np.float64, variables["params"])
        self.statistics = jax.tree.map(np.float64, variables["batch_stats"])

    def linear(self, x, name):
        return x @ self.params[name]["kernel"][0, 0] + self.params[name]["bias"]

    def norm(self, x, name):
        scale = self.params[name]["scale"] / np.sqrt(self.statistics[name]["var"] + 1e-5)
        return (x - self.statistics[name]["mean"]) * scale + self.params[name]["bias"]

    def context(self, x, name):
        pixels = x.reshape(-1, x.shape[-1])
        scores = np.exp(self.linear(pixels, name))
        return (pixels * scores).sum(0) / scores.sum()

    def depthwise(self, x, dilation, name):
        kernel = self.params[f"{name}_conv"]["kernel"]
        x = np.maximum(self.norm(x, f"{name}_bn"), 0)
        padded = np.pad(x, ((dilation, dilation), (dilation, dilation), (0, 0)))
        height, width, _ = x.shape
        total = np.zeros_like(x)
        for i in range(3):
            for j in range(3):
                top, left = i * dilation, j * dilation
                total += padded[top : top + height, left : left + width] * kernel[i, j, 0]
        return total

    def __call__(self, x):
        """One image `[H, W, C]`."""
        hidden = self.linear(self.context(x, "forget_context"), "forget_fc1")
        keep = sigmoid(self.linear(np.tanh(self.norm(hidden, "forget_bn")), "forget_fc2"))
        local = self.context(self.depthwise(x, 1, "local"), "local_context")
        wide = self.context(self.depthwise(x, 2, "dilated"), "dilated_context")
        hidden = self.linear(np.concatenate([local, wide]), "update_fc")
        hidden = np.tanh(self.norm(hidden, "update_bn"))
        scores = np.exp([self.linear(hidden, "local_score"), self.linear(hidden, "dilated_score")])
        share = scores / scores.sum(0)
        return x * keep + share[0] * local + share[1] * wide


@pytest.mark.parametrize("reduction", [2, 4])
def test_gates_of_images_that_are_not_square(reduction):
    module = Gates(reduction)
    x = np.random.default_rng(0).normal(size=(3, 5, 2, 8)).astype(np.float32)
    variables = random_variables(module, x)
    y = jax.jit(module.apply)(variables, x)
    by_hand = ByHand(variables)
    np.testing.assert_allclose(y, [by_hand(image) for image in x], atol=1e-5)


def test_stages_and_the_extra_one():
    outputs, _ = init_shapes(models.hsakd_branches(hcgnet()), 32, 18)
    features = [x.shape[1:] for x in outputs.backbone.features.values()]
    assert features == [(16, 9, 6), (8, 5, 11), (8, 5, 23)]
    assert outputs.branches["branch3"].features["stage4"].shape == (2, 8, 5, 23 + 12)
    assert [head.logits.shape for head in outputs.branches.values()] == [(2, 20)] * 3


def test_dtype_and_axis_name_reach_every_layer():
    module = hcgnet(dtype=jnp.bfloat16, axis_name="batch")
    norms = []

    def record(next_function, args, kwargs, context):
        if isinstance(context.module, models.BatchNorm):
            norms.append(context.module.axis_name)
        result = next_function(*args, **kwargs)
        if isinstance(context.module, nn.Conv | Conv):
            assert result.dtype == jnp.bfloat16
        return result

    with nn.intercept_methods(record):
        outputs, variables = init_shapes(module)
    assert norms == ["batch"] * (6 * (1 + 2 + 1) + 6 * 2 + 1)
    assert outputs.logits.dtype == jnp.float32
    assert outputs.embedding.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_convolutions_start_as_in_torch():
    params = jax.jit(Gates(2).init)(jax.random.key(0), jnp.zeros((1, 4, 4, 24)))["params"]
    for layer, fan_in in (
        (params["local_conv"]["kernel"], 9),
        (params["update_fc"]["kernel"], 2 * 24),
        (params["update_fc"]["bias"], 2 * 24),
    ):
        assert 0.8 < np.abs(layer).max() * np.sqrt(fan_in) <= 1 + 1e-6


def test_multiply_adds_of_a_dilated_convolution():
    """As the papers' counter has it: two pixels more in each direction."""
    pixels, vectors = 6 * 8, 4 * 2 + 2 * 4 + 8 * 4 + 4 * 4 + 4 * 4
    contexts = 3 * pixels * 4
    depthwise = pixels * 9 * 4 + 8 * 10 * 9 * 4
    assert models.multiply_adds(Gates(2), (6, 8, 4)) == contexts + depthwise + vectors


def names(module, dialect: str) -> list[str]:
    variables = mapping.shapes(module, (32, 32, 3))
    found = state_dict_entries.entries(mapping.namings(module)[dialect], variables)
    names = [entry.name for entry in found]
    assert len(set(names)) == len(names)
    return names


def test_names_of_branches():
    module = models.stage_branches(hcgnet(blocks=(1, 2, 2)))
    backbone = {name for name in names(module, "L-MCL") if name.startswith("backbone.")}
    branches = [name.split(".") for name in names(module, "L-MCL") if name not in backbone]
    assert {owner for owner, *_ in branches} == {"auxiliary_classifier"}
    heads = {tuple(rest[:2]) for _, *rest in branches if rest[0].startswith("fc")}
    assert heads == {(f"fc{n}", leaf) for n in (1, 2) for leaf in ("weight", "bias")}
    places = {tuple(rest[:3]) for _, *rest in branches if rest[0].startswith("block")}
    modules = ["SMG1", "SMG2"]
    leaves = ["weight", "bias", "running_mean", "running_var"]
    expected = {("block_extractor1", place, name) for place in "02" for name in modules}
    expected |= {("block_extractor2", "0", name) for name in modules}
    expected |= {("block_extractor1", "3", leaf) for leaf in leaves}
    expected |= {("block_extractor2", "1", leaf) for leaf in leaves}
    transition = {place for place in places if place[:2] == ("block_extractor1", "1")}
    assert ("block_extractor1", "1", "global_forget_context") in transition
    assert places - transition == expected
    assert "backbone.features.conv0.weight" in backbone
    assert "backbone.HybridBlock3.SMG2.bn_forget.running_var" in backbone
    assert "backbone.Transition2.conv2_3x3.conv.weight" in backbone
    assert "backbone.norm5.bias" in backbone


def test_hsakd_has_no_counterpart():
    state = {"backbone.features.conv0.weight": np.zeros(1)}
    with pytest.raises(UserError, match=r"branch3 of an HCGNet.* no counterpart"):
        interop.import_state_dict(models.hsakd_branches(hcgnet()), state)
