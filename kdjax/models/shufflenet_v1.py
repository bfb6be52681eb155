"""ShuffleNet (version 1) for 32x32 images: grouped 1x1 convolutions and channel shuffles.

Source: Zhang et al. 2018, with the stem of RepDistiller and HSAKD: a 1x1 convolution and no
pooling, so that three stages of stride 2 end in 4x4 pixels. Checked against HSAKD
models/ShuffleNetv1.py.

For 32x32 images and 100 classes (multiply-adds in millions):

    name            parameters    multiply-adds
    shufflenetv1       949,258            38.69
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

_STEM_WIDTH = 24


class GroupedShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, beside a shortcut.

    `[B, H, W, C] -> [B, H / stride, W / stride, width]`. At stride 1 the shortcut is the input and
    is added. At stride 2 it is the average-pooled input, and its channels follow those of the
    convolutions, which make `width - C` of them.

    Attributes:
      width: number of output channels.
      groups: of both 1x1 convolutions; the first has one group where the stem is the input.
    """

    width: int
    groups: int
    stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def norm(name: str) -> layers.BatchNorm:
            return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)

        def conv(features: int, kernel_size: int, groups: int, name: str, stride: int = 1) -> Conv:
            return layers.conv(
                features, kernel_size, stride, groups=groups, dtype=self.dtype, name=name
            )

        made = self.width - (x.shape[-1] if self.stride == 2 else 0)
        # A quarter of what the unit itself makes, not of its output.
        middle = made // 4
        groups = 1 if x.shape[-1] == _STEM_WIDTH else self.groups
        y = nn.relu(norm("bn1")(conv(middle, 1, groups, "conv1")(x), train))
        y = layers.channel_shuffle(y, groups)
        # The paper has no ReLU after the depthwise convolution; the official code has one.
        y = nn.relu(norm("bn2")(conv(middle, 3, middle, "conv2", self.stride)(y), train))
        y = norm("bn3")(conv(made, 1, self.groups, "conv3")(y), train)
        if self.stride == 1:
            return nn.relu(y + x)
        shortcut = layers.average_pool(x, 3, stride=2, padding=1)
        return nn.relu(jnp.concatenate([y, shortcut], axis=-1))


class ShuffleNetV1(StagedNetwork):
    """Three stages of ShuffleNet units; every stage halves the resolution.

    Attributes:
      blocks: number of units of each stage.
      widths: output channels of each stage.
      groups: of the 1x1 convolutions.
    """

    blocks: Sequence[int] = (4, 8, 4)
    widths: Sequence[int] = (240, 480, 960)
    groups: int = 3

    @property
    def num_stages(self) -> int:
        return len(self.blocks)

    @property
    def stride(self) -> int:
        return 2 ** len(self.blocks)

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        x = layers.conv(_STEM_WIDTH, 1, dtype=self.dtype, name="stem_conv")(images)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="stem_bn")
        return nn.relu(norm(x, train))

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        kind = min(number, self.num_stages) - 1
        for index in range(self.blocks[kind]):
            x = GroupedShuffleUnit(
                width=self.widths[kind],
                groups=self.groups,
                stride=2 if number <= self.num_stages and index == 0 else 1,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"stage{number}_block{index}",
            )(x, train)
        return x

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        """No link has consumers, as grouped convolutions read the shuffled channels."""
        links = [Link(("stem_conv",), ("stem_bn",))]
        for number in range(1, self.num_stages + self.extra_stages + 1):
            for index in range(self.blocks[min(number, self.num_stages) - 1]):
                unit = f"stage{number}_block{index}"
                first = 1 if (number, index) == (1, 0) else self.groups
                links += [
                    Link((f"{unit}/conv{part}",), (f"{unit}/bn{part}",), groups=groups)
                    for part, groups in ((1, first), (2, 1), (3, self.groups))
                ]
        return tuple(links)


register("shufflenetv1", ShuffleNetV1)
