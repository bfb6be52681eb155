"""What is special about residual networks: shortcuts, stems, thin branches, names."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import mapping, state_dict_entries
from kdjax.models import residual_blocks
from tests.models.helpers import IMAGES, random_variables, tiny

FOUR = {"blocks": (2, 2, 2, 2), "widths": (2, 4, 4, 4), "stem_width": 2}


def without_residual(block, x):
    """What a block computes if its convolutions are zeros."""
    variables = random_variables(block, x)
    for name, layer in variables["params"].items():
        if name.startswith("conv"):
            layer["kernel"] = np.zeros_like(layer["kernel"])
        if name == "bn2":
            layer["bias"] = np.zeros_like(layer["bias"])
            variables["batch_stats"][name]["mean"] = np.zeros_like(layer["bias"])
    return jax.jit(block.apply)(variables, x), variables["params"]


def test_padding_subsamples_and_appends_zeros():
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 3)).astype(np.float32)
    block = residual_blocks.BasicBlock(width=7, stride=2, shortcut="padding")
    y, params = without_residual(block, x)
    assert set(params) == {"conv1", "bn1", "conv2", "bn2"}
    np.testing.assert_array_equal(y[..., :3], np.maximum(x[:, ::2, ::2], 0))
    np.testing.assert_array_equal(y[..., 3:], 0)


def test_centered_padding_puts_half_of_the_zeros_before():
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 4)).astype(np.float32)
    block = residual_blocks.BasicBlock(width=8, stride=2, shortcut="centered_padding")
    y, params = without_residual(block, x)
    assert set(params) == {"conv1", "bn1", "conv2", "bn2"}
    np.testing.assert_array_equal(y[..., 2:6], np.maximum(x[:, ::2, ::2], 0))
    np.testing.assert_array_equal(y[..., [0, 1, 6, 7]], 0)


@pytest.mark.parametrize(
    ("shortcut", "layers"),
    [("padding", set()), ("centered_padding", set()), ("convolution", {"shortcut_conv"})],
)
@pytest.mark.parametrize("block", ["basic", "bottleneck", "preactivation"])
def test_layers_of_shortcuts(block, shortcut, layers):
    module = tiny(block=block, shortcut=shortcut)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IMAGES)["params"]
    found = {name for name in shapes["stage2_block0"] if name.startswith("shortcut")}
    assert found == layers


@pytest.mark.parametrize("activated", [False, True])
def test_identity_of_pre_activation_blocks(activated):
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    block = residual_blocks.PreActivationBlock(width=3, activated_identity=activated)
    y, params = without_residual(block, x)
    assert set(params) == {"conv1", "bn1", "conv2", "bn2"}
    if activated:
        assert y.min() == 0
    else:
        np.testing.assert_array_equal(y, x)


def test_unknown_shortcut():
    with pytest.raises(UserError, match="unknown shortcut 'zeros'; choose projection") as error:
        jax.eval_shape(tiny(shortcut="zeros").init, jax.random.key(0), IMAGES)
    assert "\n" not in str(error.value)


def test_stem_relu():
    """Without it the identity of the first block can be negative."""
    one = {"blocks": (1,), "widths": (4,), "block": "bottleneck", "stem_relu": False}
    plain = models.CifarResNet(num_classes=5, stem_width=16, **one)
    variables = random_variables(plain)
    for collection in variables.values():
        for layer in collection["stage1_block0"].values():
            for leaf in layer:
                layer[leaf] = np.zeros_like(layer[leaf])
    variables["params"]["stem_bn"]["bias"] = -np.ones(16, np.float32)
    variables["params"]["stem_bn"]["scale"] = np.zeros(16, np.float32)
    variables["params"]["stage1_block0"]["bn3"]["bias"] = np.full(16, 3, np.float32)
    for module, expected in ((plain, 2), (plain.clone(stem_relu=True), 3)):
        feature = jax.jit(module.apply)(variables, IMAGES).features["stage1"]
        np.testing.assert_allclose(feature, expected)


def test_imagenet_stem_is_at_a_quarter():
    module = models.ImageNetResNet(num_classes=5, **FOUR)
    outputs = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros((1, 64, 96, 3)))[0]
    )
    sides = [x.shape[1:3] for x in outputs.features.values()]
    assert sides == [(16, 24), (8, 12), (4, 6), (2, 3)]
    with pytest.raises(UserError, match=r"31x64 pixels .* stride of 32"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 31, 64, 3)))


def blocks_of(branch: dict) -> set[str]:
    return {name for name in branch if name.startswith("stage")}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            models.byot_branches,
            {"branch2": {"stage3_block0", "stage4_block0"}, "branch3": {"stage4_block0"}},
        ),
        (
            models.dks_branches,
            {
                "branch2": {"stage3_block0", "stage4_block0", "stage4_block1"},
                "branch3": {"stage4_block0", "stage4_block1"},
            },
        ),
        (
            lambda network: models.lmcl_branches(models.ImageNetResNet(num_classes=5)),
            {
                "branch1": {"stage2_block0", "stage3_block0", "stage4_block0"},
                "branch2": {"stage3_block0", "stage4_block0"},
                "branch3": {"stage4_block0"},
            },
        ),
    ],
    ids=["BYOT", "DKS", "L-MCL on ImageNet"],
)
def test_thin_branches(form, expected):
    module = form(models.CifarResNet(num_classes=5, **FOUR))
    images = np.zeros((1, 32, 32, 3), np.float32)
    params = dict(jax.eval_shape(module.init, jax.random.key(0), images)["params"])
    assert len(blocks_of(params.pop("backbone"))) == 8
    assert {name: blocks_of(branch) for name, branch in params.items()} == expected


@pytest.mark.parametrize("form", ["byot", "dks"])
def test_thin_branches_need_blocks(form):
    with pytest.raises(UserError, match="WideResNet has no field 'blocks'") as error:
        models.create(f"wrn_16_2_{form}", num_classes=5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", [models.byot_branches, models.dks_branches])
def test_deep_branches_need_three_stages(form):
    with pytest.raises(UserError, match="three stages or more, not 2"):
        form(tiny(blocks=(1, 1), widths=(4, 8)))


def official_names(module) -> set[str]:
    """In the dialect in which weights are exported."""
    naming = next(iter(mapping.namings(module).values()))
    return {
        entry.name
        for entry in state_dict_entries.entries(naming, mapping.shapes(module, (32, 32, 3)))
    }


BOTTLENECK = FOUR | {"blocks": (2, 1, 1, 1), "block": "bottleneck"}


@pytest.mark.parametrize(
    ("form", "fields", "present", "absent"),
    [
        (
            models.hsakd_branches,
            BOTTLENECK,
            {
                "backbone.linear.weight",
                "backbone.layer1.0.shortcut.1.running_var",
                "auxiliary_classifier.block_extractor1.2.0.shortcut.0.weight",
                "auxiliary_classifier.block_extractor4.0.0.bn3.bias",
                "auxiliary_classifier.fc4.bias",
            },
            "downsample",
        ),
        (
            models.byot_branches,
            BOTTLENECK | {"shortcut": "convolution"},
            {"fc.weight", "layer1.0.downsample.0.weight", "layer4_head2.0.downsample.0.weight"},
            "downsample.1",
        ),
        (
            models.dks_branches,
            FOUR | {"block": "preactivation", "shortcut": "convolution"},
            {"layer4.0.shortcut.0.weight", "layer4_head1.1.bn2.weight", "fc_head2.bias"},
            "shortcut.1",
        ),
        (
            models.stage_branches,
            BOTTLENECK | {"stem_relu": False},
            {
                "backbone.fc.weight",
                "auxiliary_classifier.block_extractor3.0.0.downsample.1.bias",
                "auxiliary_classifier.fc3.weight",
            },
            "shortcut",
        ),
        (
            models.lmcl_branches,
            FOUR | {"stem_relu": False},
            {"auxiliary_classifier.block_extractor1.2.0.downsample.0.weight"},
            "head",
        ),
    ],
    ids=["HSAKD", "BYOT", "DKS", "MixSKD", "L-MCL"],
)
def test_names_of_branches(form, fields, present, absent):
    names = official_names(form(models.CifarResNet(num_classes=5, **fields)))
    assert present <= names
    assert not [name for name in names if absent in name]


def test_branches_without_counterpart():
    module = models.hsakd_branches(models.create("densenet_40_12", num_classes=5))
    with pytest.raises(UserError, match="DenseNet with branches has no counterpart"):
        mapping.namings(module)


def test_dilation_in_place_of_stride_keeps_what_the_strided_network_computes():
    """Of the larger feature maps every second, fourth, ... pixel is that of the strided network."""
    kinds = {
        "basic": tiny(),
        "bottleneck": tiny(block="bottleneck"),
        "padding": tiny(shortcut="centered_padding"),
        "extra": tiny(extra_stages=1),
        "wrn": tiny("wrn"),
    }
    variables = {name: random_variables(network) for name, network in kinds.items()}
    # The last stage has one of two blocks more, whose convolutions are all dilated.
    kinds["deep"] = tiny(blocks=(1, 2, 2))
    variables["deep"] = random_variables(kinds["deep"])

    @jax.jit
    def features(variables):
        strides = {0: 4, 2: 2, 1: 1}
        return {
            name: {
                stride: network.clone(output_stride=stride)
                .apply(variables[name], IMAGES, stop=network.num_stages + network.extra_stages)
                .features
                for stride in strides
            }
            for name, network in kinds.items()
        }

    for name, by_stride in features(variables).items():
        strided = by_stride.pop(0)
        for maps in by_stride.values():
            for stage, expected in strided.items():
                step = maps[stage].shape[1] // expected.shape[1]
                chosen = maps[stage][:, ::step, ::step]
                np.testing.assert_allclose(
                    chosen, expected, rtol=1e-4, atol=1e-5, err_msg=f"{name} {stage}"
                )
        last = f"stage{kinds[name].num_stages}"
        assert by_stride[1][last].shape[1:3] == IMAGES.shape[1:3]


@pytest.mark.parametrize("network", [tiny(), tiny("wrn"), models.ImageNetResNet(num_classes=2)])
def test_output_strides_that_stages_cannot_have_are_refused(network):
    assert network.stride == network.clone(output_stride=network.stride).stride
    with pytest.raises(UserError, match="output_stride=3"):
        jax.eval_shape(network.clone(output_stride=3).init, jax.random.key(0), IMAGES)
