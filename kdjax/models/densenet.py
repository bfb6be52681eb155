"""DenseNets for 32x32 images: every layer sees the outputs of all earlier layers of its block.

Source: Huang et al. 2017, the form with bottlenecks and compression (DenseNet-BC). Checked against
MCL-OKD models/densenet.py, whose convolutions start as He's normal with fan-in. In DenseNet-40-12,
three blocks of six layers of two convolutions each, two transitions, the first convolution and the
classifier make 40; 12 is the growth rate.

For 32x32 images and 100 classes (multiply-adds in millions):

    name              parameters    multiply-adds
    densenet_40_12       188,092            72.38
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.filters import Link
from kdjax.models.linear import Conv
from kdjax.models.registry import register
from kdjax.models.staged import StagedNetwork

_BOTTLENECK = 4


def _conv(features: int, kernel_size: int, dtype: Any, name: str) -> Conv:
    start = layers.FAN_IN_INIT
    return layers.conv(features, kernel_size, kernel_init=start, dtype=dtype, name=name)


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1, BatchNorm, ReLU, 3x3, `[B, H, W, C] -> [B, H, W, C + growth]`.

    The output is the input with the layer's own `growth` channels behind it.
    """

    growth: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def norm(name: str) -> layers.BatchNorm:
            return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)

        y = nn.relu(norm("bn1")(x, train))
        y = _conv(_BOTTLENECK * self.growth, 1, self.dtype, "conv1")(y)
        y = nn.relu(norm("bn2")(y, train))
        y = _conv(self.growth, 3, self.dtype, "conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1x1, average pool, `[B, H, W, C] -> [B, H / 2, W / 2, C / 2]`."""

    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="bn")
        channels = x.shape[-1] // 2
        x = _conv(channels, 1, self.dtype, "conv")(nn.relu(norm(x, train)))
        return layers.average_pool(x, 2, 2)


class DenseNet(StagedNetwork):
    """A stage is a dense block and, but for the last, the transition that follows it.

    Feature maps are the concatenations (the transitions' outputs), before BatchNorm. An extra stage
    is one more block of as many layers as the last one has, on the last map: the map grows on.

    Attributes:
      blocks: number of layers of each stage.
      growth: channels that a layer adds; the first convolution has twice as many.
    """

    blocks: Sequence[int] = (6, 6, 6)
    growth: int = 12

    @property
    def num_stages(self) -> int:
        return len(self.blocks)

    @property
    def stride(self) -> int:
        return 2 ** (len(self.blocks) - 1)

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        del train  # the first BatchNorm is that of the first layer
        return _conv(2 * self.growth, 3, self.dtype, "stem_conv")(images)

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        fields = {"dtype": self.dtype, "axis_name": self.axis_name}
        for index in range(self.blocks[min(number, self.num_stages) - 1]):
            name = f"stage{number}_layer{index}"
            x = DenseLayer(self.growth, name=name, **fields)(x, train)
        if number < self.num_stages:
            x = Transition(name=f"stage{number}_transition", **fields)(x, train)
        return x

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        links = [Link(("stem_conv",), ("",))]
        for number in range(1, self.num_stages + self.extra_stages + 1):
            for index in range(self.blocks[min(number, self.num_stages) - 1]):
                layer = f"stage{number}_layer{index}"
                conv1, conv2 = f"{layer}/conv1", f"{layer}/conv2"
                links += [Link((conv1,), (f"{layer}/bn2",), (conv2,)), Link((conv2,), ("",))]
            if number < self.num_stages:
                links.append(Link((f"stage{number}_transition/conv",), ("",)))
        return tuple(links)

    @nn.nowrap
    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="final_bn")
        return layers.global_average_pool(nn.relu(norm(x, train)))


register("densenet_40_12", DenseNet)
