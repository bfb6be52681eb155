"""Residual blocks.

Source: He et al. 2016 (CVPR), section 3.3, for the blocks and two of the shortcuts, (A) padding and
(B) projection; He et al. 2016 (ECCV), figure 4e, for pre-activation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.models import layers
from kdjax.models.conv_norm import Summand, conv_norm
from kdjax.models.filters import Block, Link
from kdjax.models.linear import Conv
from kdjax.models.places import Place

PADDINGS = ("padding", "centered_padding")  # the shortcuts without parameters


class ResidualBlock(nn.Module):
    """Base class of the blocks: layers with the block's settings, and the shortcut.

    Attributes:
      width: channels of the 3x3 convolutions.
      stride: of the block.
      shortcut: what takes the place of the identity where a block changes the shape.
        'projection': a 1x1 convolution and BatchNorm; 'convolution': a 1x1 convolution; 'padding':
        every `stride`-th pixel, and zeros as the channels that are missing, behind those that are
        there; 'centered_padding': the same with half of the zeros before them. Both have no
        parameters.
      widens: whether the output has another number of channels than the input.
      dilations: of the first 3x3 convolution, which has the stride, and of the second.
      dtype: compute dtype.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
    """

    width: int
    stride: int = 1
    shortcut: str = "projection"
    widens: bool = False
    dilations: tuple[int, int] = (1, 1)
    dtype: Any = jnp.float32
    axis_name: str | None = None

    convolutions: ClassVar[int] = 2
    preactivation: ClassVar[bool] = False
    outputs_per_width: ClassVar[int] = 1

    @nn.nowrap
    def conv(
        self,
        name: str,
        features: int,
        size: int = 3,
        stride: int = 1,
        dilation: int = 1,
    ) -> Conv:
        """A convolution, `[B, H, W, C] -> [B, H / stride, W / stride, features]`."""
        return layers.conv(features, size, stride, dilation=dilation, dtype=self.dtype, name=name)

    @nn.nowrap
    def norm(self, name: str) -> layers.BatchNorm:
        """BatchNorm, `[B, H, W, C] -> [B, H, W, C]`."""
        return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)

    @property
    def shape_changes(self) -> bool:
        """Whether the shapes of the block's input and output differ."""
        return self.stride != 1 or self.widens

    @nn.nowrap
    def take_shortcut(self, x: jax.Array, features: int, train: bool) -> Summand:
        """`[B, H, W, C] -> [B, H / stride, W / stride, features]`: `x` if the shape stays.

        Raises:
          UserError: there is no such shortcut.
        """
        if not self.shape_changes:
            return Summand(x)
        if self.shortcut in PADDINGS:
            missing = features - x.shape[-1]
            before = missing // 2 if self.shortcut == "centered_padding" else 0
            return Summand(x, self.stride, before)
        if self.shortcut not in ("projection", "convolution"):
            raise UserError(
                f"unknown shortcut {self.shortcut!r}; choose projection, convolution, "
                f"{' or '.join(PADDINGS)}"
            )
        conv = self.conv("shortcut_conv", features, 1, self.stride)
        norm = self.norm("shortcut_bn") if self.shortcut == "projection" else None
        return Summand(conv_norm(conv, norm, x, train))

    @classmethod
    def links(cls, place: Place, shortcut: str) -> tuple[Link, ...]:
        """The links of a block of this class."""
        name, last = place.name, cls.convolutions
        links = []
        for number in range(1, last + 1):
            norm = number + cls.preactivation
            links.append(
                Link(
                    (f"{name}/conv{number}",),
                    ("" if cls.preactivation and number == last else f"{name}/bn{norm}",),
                    consumers=(f"{name}/conv{number + 1}",) if number < last else (),
                )
            )
        if place.reshapes and shortcut not in PADDINGS:
            after = f"{name}/shortcut_bn" if shortcut == "projection" else ""
            links.append(Link((f"{name}/shortcut_conv",), (after,), projection=True))
        return tuple(links)

    @classmethod
    def reads_and_writes(cls, place: Place) -> Block:
        """The reading and writing layers of a block with a convolution as shortcut."""
        shortcut = (f"{place.name}/shortcut_conv",) if place.reshapes else ()
        return Block(
            place.name,
            reads=(f"{place.name}/conv1", *shortcut),
            norms=(f"{place.name}/bn1",) if cls.preactivation else (),
            writes=(*shortcut, f"{place.name}/conv{cls.convolutions}"),
            adds=not place.reshapes,
        )


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, `[B, H, W, C] -> [B, H / stride, W / stride, width]`."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        first, second = self.dilations
        conv = self.conv("conv1", self.width, 3, self.stride, first)
        y = conv_norm(conv, self.norm("bn1"), x, train, relu=True)
        shortcut = self.take_shortcut(x, self.width, train)
        conv = self.conv("conv2", self.width, dilation=second)
        return conv_norm(conv, self.norm("bn2"), y, train, summand=shortcut, relu=True)


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 (strided), 1x1, `[B, H, W, C] -> [B, H / stride, W / stride, 4 * width]`."""

    convolutions = 3
    outputs_per_width = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        features = self.outputs_per_width * self.width
        y = conv_norm(self.conv("conv1", self.width, 1), self.norm("bn1"), x, train, relu=True)
        conv = self.conv("conv2", self.width, 3, self.stride, self.dilations[0])
        y = conv_norm(conv, self.norm("bn2"), y, train, relu=True)
        shortcut = self.take_shortcut(x, features, train)
        conv = self.conv("conv3", features, 1)
        return conv_norm(conv, self.norm("bn3"), y, train, summand=shortcut, relu=True)


class PreActivationBlock(ResidualBlock):
    """BatchNorm, ReLU, 3x3, twice, `[B, H, W, C] -> [B, H / stride, W / stride, width]`.

    Where the shape changes, the shortcut starts from the *activated* input.

    Attributes:
      activated_identity: whether it does so elsewhere, too, instead of from the input itself.
    """

    shortcut: str = "convolution"
    activated_identity: bool = False

    preactivation = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        activated = nn.relu(self.norm("bn1")(x, train))
        first, second = self.dilations
        conv = self.conv("conv1", self.width, 3, self.stride, first)
        y = conv_norm(conv, self.norm("bn2"), activated, train, relu=True)
        if self.activated_identity or self.shape_changes:
            x = activated
        shortcut = self.take_shortcut(x, self.width, train)
        return conv_norm(
            self.conv("conv2", self.width, dilation=second), None, y, train, summand=shortcut
        )
