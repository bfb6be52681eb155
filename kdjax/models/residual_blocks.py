"""Residual blocks.

Source: He et al. 2016 (CVPR), section 3.3, for the blocks and two of the shortcuts, (A) padding and
(B) projection; He et al. 2016 (ECCV), figure 4e, for pre-activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.models import layers
from kdjax.models.filters import Block, Link

PADDINGS = ("padding", "centered_padding")  # the shortcuts without parameters


class Place(NamedTuple):
    """Where a block stands in its network.

    Attributes:
      name: of the block.
      stride: of the block.
      widens: as in `ResidualBlock`; only asked for at stride 1.
    """

    name: str
    stride: int
    widens: bool

    @property
    def reshapes(self) -> bool:
        """Whether the block has a shortcut other than the identity."""
        return self.stride != 1 or self.widens


def places(blocks: Sequence[int], extra_stages: int, widens: bool) -> dict[int, list[Place]]:
    """The blocks of every stage; every stage but the first and extra ones halves the resolution.

    Args:
      blocks: number of blocks of each stage; extra ones have as many as the last.
      extra_stages: how many more stages follow.
      widens: whether the very first block has other channels than the stem.
    """
    counts = [*blocks, *[blocks[-1]] * extra_stages]
    return {
        number: [
            Place(
                f"stage{number}_block{index}",
                stride=2 if index == 0 and 1 < number <= len(blocks) else 1,
                widens=widens and (number, index) == (1, 0),
            )
            for index in range(count)
        ]
        for number, count in enumerate(counts, start=1)
    }


class ResidualBlock(nn.Module):
    """What the blocks have in common: layers with the block's settings, and the shortcut.

    Attributes:
      width: channels of the 3x3 convolutions.
      stride: of the block.
      shortcut: what takes the place of the identity where a block changes the shape.
        'projection': a 1x1 convolution and BatchNorm; 'convolution': a 1x1 convolution; 'padding':
        every `stride`-th pixel, and zeros as the channels that are missing, behind those that are
        there; 'centered_padding': the same with half of the zeros before them. Both have no
        parameters.
      widens: whether the output has another number of channels than the input.
      dtype: compute dtype.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
    """

    width: int
    stride: int = 1
    shortcut: str = "projection"
    widens: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    convolutions: ClassVar[int] = 2
    preactivation: ClassVar[bool] = False
    outputs_per_width: ClassVar[int] = 1

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

    @property
    def shape_changes(self) -> bool:
        """Whether the block's output has another shape than its input."""
        return self.stride != 1 or self.widens

    @nn.nowrap
    def take_shortcut(self, x: jax.Array, features: int, train: bool) -> jax.Array:
        """`[B, H, W, C] -> [B, H / stride, W / stride, features]`: `x` if the shape stays.

        Raises:
          UserError: there is no such shortcut.
        """
        if not self.shape_changes:
            return x
        if self.shortcut in PADDINGS:
            missing = features - x.shape[-1]
            before = missing // 2 if self.shortcut == "centered_padding" else 0
            sides = [(0, 0)] * 3 + [(before, missing - before)]
            return jnp.pad(x[:, :: self.stride, :: self.stride], sides)
        if self.shortcut not in ("projection", "convolution"):
            raise UserError(
                f"unknown shortcut {self.shortcut!r}; choose projection, convolution, "
                f"{' or '.join(PADDINGS)}"
            )
        x = self.conv("shortcut_conv", x, features, 1, self.stride)
        return self.norm("shortcut_bn", x, train) if self.shortcut == "projection" else x

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
            norm = f"{name}/shortcut_bn" if shortcut == "projection" else ""
            links.append(Link((f"{name}/shortcut_conv",), (norm,), projection=True))
        return tuple(links)

    @classmethod
    def reads_and_writes(cls, place: Place) -> Block:
        """What a block of this class, with a convolution as shortcut, reads and writes."""
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
        y = self.conv("conv1", x, self.width, 3, self.stride)
        y = nn.relu(self.norm("bn1", y, train))
        y = self.norm("bn2", self.conv("conv2", y, self.width), train)
        return nn.relu(y + self.take_shortcut(x, self.width, train))


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 (strided), 1x1, `[B, H, W, C] -> [B, H / stride, W / stride, 4 * width]`."""

    convolutions = 3
    outputs_per_width = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        features = self.outputs_per_width * self.width
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

    preactivation = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        activated = nn.relu(self.norm("bn1", x, train))
        y = self.conv("conv1", activated, self.width, 3, self.stride)
        y = nn.relu(self.norm("bn2", y, train))
        y = self.conv("conv2", y, self.width)
        if self.activated_identity or self.shape_changes:
            x = activated
        return y + self.take_shortcut(x, self.width, train)
