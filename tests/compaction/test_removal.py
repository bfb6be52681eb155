"""A network without its zero filters computes what the network computes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.compaction import (
    filter_groups,
    masks_of_zeros,
    narrow,
    removal_table,
    remove_filters,
    shrink,
)
from kdjax.models import channels, layers
from kdjax.pruning import official
from kdjax.pruning.accounting import cifar_resnet
from tests.compaction.removed import assert_close, images, logits, prepared, pruned
from tests.models.families import FAMILIES, random_variables


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_residual_sums_with_constants_keep_their_width():
    network, variables, masks, _ = prepared("resnet", residual=True)
    result = remove_filters(network, variables, masks)
    assert result.network.compaction.sums == ()
    assert_close(
        logits(result.network, result.variables, images()), logits(network, variables, images())
    )


def test_a_network_shrinks_again():
    """In two steps to what one step makes; the second masks are those of the narrow network."""
    network, variables, masks, groups = prepared("resnet", norms=True, residual=True)
    once = shrink(network, variables, masks)
    half = {name: np.ones_like(mask) for name, mask in masks.items()}
    for name in list(masks)[::2]:
        half[name] = masks[name] | (np.cumsum(~masks[name]) % 2 == 0)
    first = shrink(network, variables, half)
    assert 0 < models.parameter_count(first.variables) < models.parameter_count(variables)
    second = shrink(first.network, first.variables, narrow(masks, first.cuts))
    assert second.network == once.network
    jax.tree.map(np.testing.assert_array_equal, second.variables, once.variables)
    again = filter_groups(second.network, norms=True, residual=True)
    gone = {group.name: int((~masks[group.name]).sum()) for group in groups}
    assert {group.name: group.removed for group in again} == gone


def test_zero_filters_are_found():
    network, variables, masks, groups = prepared("vgg")
    found = masks_of_zeros(variables["params"], groups)
    assert_close(found, masks)
    assert (
        remove_filters(network, variables).network
        == remove_filters(network, variables, masks).network
    )
    # One of several leaves that is not zero keeps a filter.
    with_norms = filter_groups(network, norms=True)
    assert all(mask.all() for mask in masks_of_zeros(variables["params"], with_norms).values())


def test_only_masked_filters_go():
    network, variables, masks, _ = prepared("resnet, padding", norms=True)
    name = "stage1_block1/conv1"
    result = shrink(network, variables, {name: masks[name]})
    assert set(result.network.compaction.masks) == {name}
    assert set(result.cuts) == {
        name,
        f"{name}/kernel",
        "stage1_block1/conv2/kernel",
        *(f"stage1_block1/bn1/{leaf}" for leaf in ("scale", "bias", "mean", "var")),
    }


def test_an_expansion_alone_cannot_go():
    """What a depthwise convolution makes of a constant differs at the border."""
    network = FAMILIES["mobilenet v2"]
    variables = random_variables(network)
    name = "stage2_block0/expand_conv"
    kernel = variables["params"]["stage2_block0"]["expand_conv"]["kernel"]
    kernel[..., 3] = 0
    mask = {name: np.arange(kernel.shape[-1]) != 3}
    assert remove_filters(network, variables, mask).network.compaction.kept == ()
    depthwise = variables["params"]["stage2_block0"]["depthwise_conv"]["kernel"]
    depthwise[..., 3] = 0
    assert list(remove_filters(network, variables, mask).network.compaction.masks) == [name]


def test_groups_keep_equally_many_filters():
    network = FAMILIES["hcgnet"]
    variables = random_variables(network)
    name = "stage1_smg0/conv2"  # four groups of two filters
    for gone, left in (([0, 1, 2], "00111111"), ([0, 2], "11111111"), ([0, 3, 4, 6], "01100101")):
        kernel = variables["params"]["stage1_smg0"]["conv2"]["kernel"].copy()
        kernel[..., gone] = 0
        layer = variables["params"]["stage1_smg0"] | {"conv2": {"kernel": kernel}}
        changed = variables | {"params": variables["params"] | {"stage1_smg0": layer}}
        compaction = remove_filters(network, changed).network.compaction
        assert dict(compaction.kept).get(name, "1" * 8) == left


def test_numbers_of_filters_can_be_multiples():
    network, variables, masks, _ = prepared("resnet, padding", 0.5)
    result = remove_filters(network, variables, masks, multiple=4)
    counts = {int(mask.sum()) for mask in result.network.compaction.masks.values()}
    assert counts == {4, 8}  # of 8 filters 4, of 12 filters 6
    x = images()
    assert_close(logits(result.network, result.variables, x), logits(network, variables, x))


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ((3, 1, 1), (1, 1)),
        ((3, 1, 1), (9, 6)),
        ((3, 2, 1), (9, 6)),
        ((7, 2, 1), (2, 5)),
        ((7, 2, 1), (16, 17)),
        ((1, 2, 1), (9, 6)),
        ((3, 1, 2), (9, 6)),
    ],
)
def test_constants_stop_at_the_border(fields, size):
    kernel_size, stride, dilation = fields
    conv = layers.conv(4, kernel_size, stride, dilation=dilation, dtype=jnp.float64)
    kernel = np.random.default_rng(0).normal(size=(kernel_size, kernel_size, 1, 4))
    expected = conv.apply({"params": {"kernel": kernel}}, np.ones((1, *size, 1)))
    assert_close(channels.of_constant(conv, kernel, size), expected[0])


@pytest.mark.parametrize("cost", [0, 1000])  # gathered, or multiplied by a matrix
def test_channels_are_taken_out_and_put_back(cost):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 7)).astype(np.float32)
    mask = np.array([False, True, True, False, True, False, True])
    few = channels.select(x, mask, cost)
    np.testing.assert_array_equal(few, x[..., mask])
    np.testing.assert_array_equal(channels.widen(few, mask, cost), x * mask)


def test_parts_and_cohorts():
    """Stages that are shared, and names that begin with those of the network in the cohort."""
    network, variables, masks, _ = prepared("vgg, max pooling")
    result = remove_filters(network, variables, masks)
    x = images(32, 32)
    expected = logits(network, variables, x)
    cohort = models.Cohort((result.network, result.network), shared_stages=2)
    trunk = {"stage1_block0", "stage2_block0"}
    parts = {
        collection: {
            "trunk": {name: tree[name] for name in trunk},
            "network_0": {name: leaf for name, leaf in tree.items() if name not in trunk},
        }
        for collection, tree in result.variables.items()
    }
    for tree in parts.values():
        tree["network_1"] = tree["network_0"]
    outputs = jax.jit(cohort.apply)(parts, x)
    for each in outputs:
        assert_close(each.logits, expected)


def test_state_of_a_cohort_is_cut_by_the_name_of_the_network():
    network, variables, masks, _ = prepared("resnet, padding", norms=True)
    cuts = shrink(network, variables, masks).cuts
    small = narrow(variables["params"], cuts)
    params = {"cohort": {"network_0": variables["params"], "network_1": variables["params"]}}
    state = {"trace": params, "masks": {f"cohort/network_0/{n}": m for n, m in masks.items()}}
    found = narrow(state, cuts, within="cohort/network_0")
    jax.tree.map(np.testing.assert_array_equal, found["trace"]["cohort"]["network_0"], small)
    assert found["trace"]["cohort"]["network_1"] is not None
    other = found["trace"]["cohort"]["network_1"]
    jax.tree.map(np.testing.assert_array_equal, other, variables["params"])
    assert all(mask.all() for mask in found["masks"].values())
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), variables["params"])
    first = jax.tree.map(lambda leaf: leaf[0], narrow(stacked, cuts))
    jax.tree.map(np.testing.assert_array_equal, first, small)


def test_multiply_adds_are_those_of_the_papers():
    """But for the classifier, which the formula leaves out. A quarter of 16 is a whole number."""
    network = models.create("sfp_resnet20", num_classes=10)
    variables = random_variables(network, dtype=np.float32)
    variables["params"], masks = pruned(
        variables["params"], official(variables["params"]), rate=0.25
    )
    result = remove_filters(network, variables, masks)
    counted = models.multiply_adds(result.network, (32, 32, 3))
    assert counted - 64 * 10 == cifar_resnet(20, 0.25).macs


def test_removal_table():
    network, variables, masks, _ = prepared("resnet, padding")
    result = remove_filters(network, variables, masks)
    lines = removal_table(result.network, result.variables).splitlines()
    assert lines[0].split() == ["layer", "filters", "left"]
    assert lines[1].split() == ["stem_conv", "8", "5", "wide"]
    assert lines[2].split() == ["stage1_block0/conv1", "8", "5"]
    assert lines[-1].split()[0] == "total"
    dense = removal_table(network, variables).splitlines()
    assert dense[1].split() == ["stem_conv", "8", "8"]
