"""A user's own `StagedNetwork` is cut as kdjax's are, if its layers take their widths from it."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.compaction import remove_filters
from kdjax.errors import UserError
from kdjax.models import layers
from tests.compaction.removed import assert_close, images, logits
from tests.models.families import random_variables


class Block(nn.Module):
    """Convolutions of kdjax, at two depths, and linen's BatchNorm between."""

    linen: bool = False

    @nn.compact
    def __call__(self, x, train):
        fields = {"dtype": x.dtype, "name": "conv1"}
        conv = nn.Conv(6, (3, 3), **fields) if self.linen else layers.conv(6, **fields)
        y = nn.relu(nn.BatchNorm(not train, name="bn")(conv(x)))
        return layers.conv(5, dtype=x.dtype, name="conv2")(y)


class Own(models.StagedNetwork):
    """A residual block whose layers are made by `kind`: 'kdjax', 'linen' or 'remat'."""

    kind: str = "kdjax"

    num_stages = 1
    stride = 1

    @nn.nowrap
    def stem(self, images, train):
        return layers.conv(5, dtype=self.dtype, name="stem_conv")(images)

    @nn.nowrap
    def stage(self, x, number, train):
        block = nn.remat(Block, static_argnums=(2,)) if self.kind == "remat" else Block
        return nn.relu(x + block(self.kind == "linen", name="block")(x, train))

    @nn.nowrap
    def filter_links(self):
        return (
            models.Link(("stem_conv",), ("",), ("block/conv1",), shared=True),
            models.Link(("block/conv1",), ("block/bn",), ("block/conv2",)),
            models.Link(("block/conv2",), ("",)),
        )


def with_zeros(kind: str):
    """A network with zero filters in every convolution, and its variables."""
    network = Own(num_classes=3, kind=kind, dtype=jnp.float64)
    variables = random_variables(network)
    for path, zeros in (("stem_conv", [1]), ("block/conv1", [0, 3, 4]), ("block/conv2", [2, 4])):
        layer = variables["params"]
        for key in path.split("/"):
            layer = layer[key]
        layer["kernel"][..., zeros] = 0
        if "bias" in layer:
            layer["bias"][zeros] = 0
    return network, variables


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_it_is_cut_exactly():
    network, variables = with_zeros("kdjax")
    result = remove_filters(network, variables)
    shapes = jax.tree.map(np.shape, result.variables["params"])
    assert shapes["stem_conv"] == {"kernel": (3, 3, 3, 4)}
    assert shapes["block"]["conv1"] == {"kernel": (3, 3, 4, 3), "folded": (3, 3, 1, 3)}
    assert shapes["block"]["conv2"] == {"kernel": (3, 3, 3, 3), "folded": (3, 3, 1, 3)}
    x = images(6, 6)
    assert_close(logits(result.network, result.variables, x), logits(network, variables, x))


@pytest.mark.parametrize("kind", ["linen", "remat"])
def test_layers_that_do_not_ask_the_network_are_refused(kind):
    with pytest.raises(UserError, match="'block/conv1' of Own does not take its width") as error:
        remove_filters(*with_zeros(kind))
    assert "\n" not in str(error.value)
