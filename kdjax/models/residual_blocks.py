"""Residual blocks, and networks whose stages are rows of them.

Source: He et al. 2016 (CVPR), section 3.3, for the blocks and two of the shortcuts, (A) padding and
(B) projection; He et al. 2016 (ECCV), figure 4e, for pre-activation.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.models import layers
from kdjax.models.staged import StagedNetwork


class ResidualBlock(nn.Module):
    """What the blocks have in common: layers with the block's settings, and the shortcut.

    Attributes:
      width: channels of the 3x3 convolutions.
      stride: of the block.
      shortcut: what takes the place of the identity where a block changes the shape.
        'projection': a 1x1 convolution and BatchNorm; 'convolution': a 1x1 convolution; 'padding':
        every `stride`-th pixel, and zeros as the channels that are missing (no parameters).
      dtype: compute dtype.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
    """

    width: int
    stride: int = 1
    shortcut: str = "projection"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.nowrap
    def conv(
        self, name: str, x: jax.Array, features: int, size: int = 3, stride: int = 1
    ) -> jax.Array:
        """A convolution, `[B, H, W, C] -> [B, H / stride, W / stride, features]`."""
        return layers.conv(features, size, stride, dtype=self.dtype, name=name)(x)

    @nn.nowrap
    def norm(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        """BatchNorm, `[B, H, W, C] -> [B, H, W, C]`."""
        return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)(x, train)

    @nn.nowrap
    def shape_changes(self, x: jax.Array, features: int) -> bool:
        """Whether the block's output has another shape than its input `x`."""
        return self.stride != 1 or x.shape[-1] != features

    @nn.nowrap
    def take_shortcut(self, x: jax.Array, features: int, train: bool) -> jax.Array:
        """`[B, H, W, C] -> [B, H / stride, W / stride, features]`: `x` itself if it has that shape.

        Raises:
          UserError: there is no such shortcut.
        """
        if not self.shape_changes(x, features):
            return x
        if self.shortcut == "padding":
            missing = features - x.shape[-1]
            return jnp.pad(x[:, :: self.stride, :: self.stride], [(0, 0)] * 3 + [(0, missing)])
        if self.shortcut not in ("projection", "convolution"):
            raise UserError(
                f"unknown shortcut {self.shortcut!r}; choose projection, convolution or padding"
            )
        x = self.conv("shortcut_conv", x, features, 1, self.stride)
        return self.norm("shortcut_bn", x, train) if self.shortcut == "projection" else x


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, `[B, H, W, C] -> [B, H / stride, W / stride, width]`."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = self.conv("conv1", x, self.width, 3, self.stride)
        y = nn.relu(self.norm("bn1", y, train))
        y = self.norm("bn2", self.conv("conv2", y, self.width), train)
        return nn.relu(y + self.take_shortcut(x, self.width, train))


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 (strided), 1x1, `[B, H, W, C] -> [B, H / stride, W / stride, 4 * width]`."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        features = 4 * self.width
        y = self.conv("conv1", x, self.width, 1)
        y = nn.relu(self.norm("bn1", y, train))
        y = self.conv("conv2", y, self.width, 3, self.stride)
        y = nn.relu(self.norm("bn2", y, train))
        y = self.norm("bn3", self.conv("conv3", y, features, 1), train)
        return nn.relu(y + self.take_shortcut(x, features, train))


class PreActivationBlock(ResidualBlock):
    """BatchNorm, ReLU, 3x3, twice, `[B, H, W, C] -> [B, H / stride, W / stride, width]`.

    Where the shape changes, the shortcut starts from the *activated* input.

    Attributes:
      activated_identity: whether it does so elsewhere, too, instead of from the input itself.
    """

    shortcut: str = "convolution"
    activated_identity: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        activated = nn.relu(self.norm("bn1", x, train))
        y = self.conv("conv1", activated, self.width, 3, self.stride)
        y = nn.relu(self.norm("bn2", y, train))
        y = self.conv("conv2", y, self.width)
        if self.activated_identity or self.shape_changes(x, self.width):
            x = activated
        return y + self.take_shortcut(x, self.width, train)


_BLOCKS = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
    "preactivation": functools.partial(PreActivationBlock, activated_identity=True),
}


class ResidualNetwork(StagedNetwork):
    """Stages of residual blocks; every stage but the first halves the resolution.

    Feature maps are those after a stage's last block. A family adds its stem.

    Attributes:
      blocks: number of residual blocks of each stage.
      widths: channels of the 3x3 convolutions of each stage (a bottleneck block has four times as
        many outputs).
      stem_width: channels of the first convolution.
      block: 'basic', 'bottleneck' or 'preactivation' (two 3x3 convolutions, the identity taken from
        the activated input; nothing comes after the last block).
      shortcut: 'projection', 'convolution' or 'padding', see `ResidualBlock`.
    """

    blocks: Sequence[int] = (3, 3, 3)
    widths: Sequence[int] = (16, 32, 64)
    stem_width: int = 16
    block: str = "basic"
    shortcut: str = "projection"

    @property
    def num_stages(self) -> int:
        return len(self.blocks)

    @nn.nowrap
    def stem_layers(self, images: jax.Array, size: int, stride: int, train: bool) -> jax.Array:
        """The first convolution and its BatchNorm."""
        conv = layers.conv(self.stem_width, size, stride, dtype=self.dtype, name="stem_conv")
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="stem_bn")
        return norm(conv(images), train)

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        kind = min(number, self.num_stages) - 1
        halve = 1 < number <= self.num_stages
        for index in range(self.blocks[kind]):
            x = _BLOCKS[self.block](
                width=self.widths[kind],
                stride=2 if halve and index == 0 else 1,
                shortcut=self.shortcut,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"stage{number}_block{index}",
            )(x, train)
        return x
