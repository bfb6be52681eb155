"""Masks, counts and FLOPs against the official code of soft filter pruning."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from kdjax import models, pruning
from kdjax.interop import torch as interop
from kdjax.pruning import accounting, counting, criteria
from tests import golden
from tests.pruning.trees import kernels

# What `--layer_begin`, `--layer_end` and `--layer_inter` choose, as patterns.
SELECTIONS = {
    (0, 54, 3): pruning.official,
    (6, 30, 6): functools.partial(
        pruning.by_pattern, patterns=["stage1_*/conv2/kernel", "stage2_block[01]/conv2/kernel"]
    ),
}


class Network(NamedTuple):
    """A filled sfp_resnet20 and which convolution each official parameter number is."""

    params: dict
    numbers: dict[int, str]


@pytest.fixture(scope="module")
def network() -> Network:
    record, _ = golden.trajectory("traj_sfp_resnet20")
    module = models.create("sfp_resnet20", num_classes=record["num_classes"])
    variables, report = interop.import_state_dict(module, golden.state_dict(record["net"]))
    places = {entry: path for entry, _, path in report.rows}
    kinds = {name: kind for name, _, kind in record["net"]["state_dict"]}
    parameters = [n for n, k in kinds.items() if k not in ("bn_mean", "bn_var", "bn_count")]
    numbers = {
        number: places[name].removeprefix("params/").removesuffix("/kernel")
        for number, name in enumerate(parameters)
        if kinds[name] == "conv_weight"
    }
    return Network(variables["params"], numbers)


@pytest.mark.parametrize("name", golden.loss_names("sfp_mask_resnet20"))
def test_masks(network, name):
    hyper, arrays = golden.loss(name)
    layers = tuple(hyper[f"layer_{key}"] for key in ("begin", "end", "inter"))
    if layers == (1, 1, 1):
        # The official defaults address a BatchNorm's weight and prune nothing, in silence.
        assert all(arrays[f"out_mask_{number:03}"].all() for number in network.numbers)
        with pytest.raises(ValueError, match="matches no kernel"):
            pruning.by_pattern(network.params, ["stem_bn/scale"])
        return
    rate = round(1 - hyper["rate"], 12)
    tx = pruning.sfp(SELECTIONS[layers], rate, epochs=1, every=1, counting="float")
    masks = tx.init(network.params).masks
    for number, layer in network.numbers.items():
        expected = arrays[f"out_mask_{number:03}"].astype(bool)
        np.testing.assert_array_equal(masks.pop(layer, np.ones_like(expected)), expected)
    assert not masks


def test_norms(network):
    arrays = golden.loss("sfp_mask_resnet20_c10_r7").arrays
    for number, layer in network.numbers.items():
        scores = jax.jit(criteria.l2)(kernels(network.params)[layer])
        golden.assert_close(scores, arrays[f"in_norm_{number:03}"], 1e-6)


def test_counts():
    arrays = golden.loss("sfp_prune_count").arrays
    differing = 0
    for row, size in enumerate(arrays["in_C"]):
        for column, kept in enumerate(arrays["in_rate"]):
            rate, expected = round(1 - kept, 12), arrays["out_count"][row, column]
            assert counting.number(int(size), rate, counting="float") == expected
            exact = counting.number(int(size), rate)
            assert exact == size * round(10 * rate) // 10
            assert exact - expected in (0, 1)
            differing += exact - expected
    assert differing == 16  # filters that are lost to binary fractions
    assert counting.number(10, 0.1, counting="float") == 0
    assert counting.number(10, 0.1) == 1


def test_flops():
    arrays = golden.loss("sfp_flops").arrays
    for depth, row in zip(arrays["in_depth"], arrays["out_flops"], strict=True):
        for kept, expected in zip(arrays["in_rate"], row, strict=True):
            macs = accounting.cifar_resnet(int(depth), 1 - kept).macs
            assert macs == pytest.approx(expected, rel=1e-12)
