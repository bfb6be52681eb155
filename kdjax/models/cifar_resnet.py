"""ResNets for 32x32 images: three stages at full, half and quarter resolution.

Source: He et al. 2016, section 4.2, in the variant of RepDistiller, HSAKD and MCL: shortcuts that
change shape are a 1x1 convolution and BatchNorm (not He's padding with zeros). Checked against
HSAKD models/resnet.py, MCL models/resnet.py and MCL-OKD models/resnet.py, which agree for equal
names but one: `resnet110` of MCL and MCL-OKD has bottleneck blocks. It is `resnet110_bottleneck`
here.

For 32x32 images and 100 classes (multiply-adds in millions):

    name                     parameters    multiply-adds
    resnet8                      83,892            12.51
    resnet14                    181,108            26.66
    resnet20                    278,324            40.82
    resnet32                    472,756            69.13
    resnet44                    667,188            97.44
    resnet56                    861,620           125.75
    resnet110                 1,736,564           253.16
    resnet110_bottleneck      1,170,868           167.45
    resnet8x4                 1,233,540           177.07
    resnet32x4                7,433,860          1083.04
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.registry import register
from kdjax.models.staged import StagedNetwork


def _shortcut(x, features: int, stride: int, dtype, axis_name, train: bool) -> jax.Array:
    """The identity where shapes allow it, else a 1x1 convolution and BatchNorm."""
    if stride == 1 and x.shape[-1] == features:
        return x
    x = layers.conv(features, 1, stride, dtype=dtype, name="shortcut_conv")(x)
    return layers.BatchNorm(dtype=dtype, axis_name=axis_name, name="shortcut_bn")(x, train)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, `[B, H, W, C] -> [B, H / stride, W / stride, width]`."""

    width: int
    stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def norm(name):
            return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)

        y = layers.conv(self.width, 3, self.stride, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(norm("bn1")(y, train))
        y = layers.conv(self.width, 3, dtype=self.dtype, name="conv2")(y)
        y = norm("bn2")(y, train)
        shortcut = _shortcut(x, self.width, self.stride, self.dtype, self.axis_name, train)
        return nn.relu(y + shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 (strided), 1x1, `[B, H, W, C] -> [B, H / stride, W / stride, 4 * width]`."""

    width: int
    stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def norm(name):
            return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)

        features = self.expansion * self.width
        y = layers.conv(self.width, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(norm("bn1")(y, train))
        y = layers.conv(self.width, 3, self.stride, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(norm("bn2")(y, train))
        y = layers.conv(features, 1, dtype=self.dtype, name="conv3")(y)
        y = norm("bn3")(y, train)
        shortcut = _shortcut(x, features, self.stride, self.dtype, self.axis_name, train)
        return nn.relu(y + shortcut)


_BLOCKS = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


class CifarResNet(StagedNetwork):
    """A residual network of three stages; every stage but the first halves the resolution.

    Attributes:
      blocks: number of residual blocks of each stage.
      widths: channels of the 3x3 convolutions of each stage (a bottleneck block has four times as
        many outputs).
      stem_width: channels of the first convolution.
      block: 'basic' or 'bottleneck'.
    """

    blocks: Sequence[int] = (3, 3, 3)
    widths: Sequence[int] = (16, 32, 64)
    stem_width: int = 16
    block: str = "basic"

    @property
    def num_stages(self) -> int:
        return len(self.blocks)

    @property
    def stride(self) -> int:
        return 2 ** (len(self.blocks) - 1)

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        x = layers.conv(self.stem_width, dtype=self.dtype, name="stem_conv")(images)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="stem_bn")
        return nn.relu(norm(x, train))

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        kind = min(number, self.num_stages) - 1
        halve = 1 < number <= self.num_stages
        for index in range(self.blocks[kind]):
            x = _BLOCKS[self.block](
                width=self.widths[kind],
                stride=2 if halve and index == 0 else 1,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"stage{number}_block{index}",
            )(x, train)
        return x


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(f"resnet{_depth}", CifarResNet, blocks=((_depth - 2) // 6,) * 3)
for _depth in (8, 32):
    register(
        f"resnet{_depth}x4",
        CifarResNet,
        blocks=((_depth - 2) // 6,) * 3,
        widths=(64, 128, 256),
        stem_width=32,
    )
register("resnet110_bottleneck", CifarResNet, blocks=(12, 12, 12), block="bottleneck")
