"""MobileNetV2 for 32x32 images, in HSAKD's variant.

Source: Sandler et al. 2018, table 2. Checked against HSAKD models/mobilenetv2.py (`mobilenetV2` is
`mobilenetv2_half` here, `mobilenetv2_T_w(6, 1.0)` is `mobilenetv2`). What makes it this variant:

- the first convolution and the second group of blocks have stride 1, so that 32x32 images end at
  4x4 (Sandler et al.: 7x7 for 224x224);
- ReLU, not ReLU6; no dropout;
- the first block has its 1x1 expansion convolution although its expansion is 1;
- widths are rounded down, not to multiples of 8; the last 1x1 convolution is never below 1280.

RepDistiller's `mobile_half` (models/mobilenetv2.py) has the same parameters but a first convolution
of stride 2, with about a quarter of the multiply-adds: its figures belong to another network.

For 32x32 images and 100 classes (multiply-adds in millions):

    name                parameters    multiply-adds
    mobilenetv2_half       812,836            25.71
    mobilenetv2          2,353,060            89.14
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.filters import Block, Link, ResidualGroup, group_blocks
from kdjax.models.registry import register
from kdjax.models.staged import StagedNetwork

_STEM_WIDTH = 32
_FINAL_WIDTH = 1280


class Group(NamedTuple):
    """Inverted residual blocks of one width; the first of them has the stride."""

    width: int
    blocks: int
    stride: int


# The stages, each of one or two groups.
STAGES = (
    (Group(16, 1, 1), Group(24, 2, 1)),
    (Group(32, 3, 2),),
    (Group(64, 4, 2), Group(96, 3, 1)),
    (Group(160, 3, 2), Group(320, 1, 1)),
)


class Place(NamedTuple):
    """Where a block stands in its network, and the fields that it has there.

    Attributes:
      name: of the block.
      hidden, width, stride, adds, expands: of the block.
    """

    name: str
    hidden: int
    width: int
    stride: int
    adds: bool
    expands: bool


class InvertedResidual(nn.Module):
    """1x1 to `hidden` channels, 3x3 depthwise, 1x1 to `width`, which stays linear.

    `[B, H, W, C] -> [B, H / stride, W / stride, width]`.

    Attributes:
      hidden: channels of the depthwise convolution.
      width: number of output channels.
      stride: of the depthwise convolution.
      adds: whether the input is added to the output.
      expands: whether there is the first of the convolutions.
      activation: behind the first two convolutions.
    """

    hidden: int
    width: int
    stride: int = 1
    adds: bool = False
    expands: bool = True
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def norm(name: str) -> layers.BatchNorm:
            return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)

        inner, y = self.hidden, x
        if self.expands:
            y = layers.conv(inner, 1, dtype=self.dtype, name="expand_conv")(x)
            y = self.activation(norm("expand_bn")(y, train))
        y = layers.conv(
            inner, 3, self.stride, groups=inner, dtype=self.dtype, name="depthwise_conv"
        )(y)
        y = self.activation(norm("depthwise_bn")(y, train))
        y = layers.conv(self.width, 1, dtype=self.dtype, name="project_conv")(y)
        y = norm("project_bn")(y, train)
        return x + y if self.adds else y

    @classmethod
    def links(cls, place: Place) -> tuple[Link, ...]:
        """The links of a block; whoever reads its output is not known here."""
        name = place.name
        return (
            Link(
                (f"{name}/expand_conv", f"{name}/depthwise_conv"),
                (f"{name}/expand_bn", f"{name}/depthwise_bn"),
                consumers=(f"{name}/project_conv",),
            ),
            Link((f"{name}/project_conv",), (f"{name}/project_bn",), relu=False),
        )


class MobileNetV2(StagedNetwork):
    """Four stages at full, half, a quarter and an eighth of the resolution.

    Feature maps are the (linear) ends of the stages. The embedding is wider than the last of them:
    a 1x1 convolution, BatchNorm and ReLU stand before the average pooling.

    An extra stage is the groups of the last stage again, at stride 1. The official auxiliary
    branches have the input channels of `width=0.5` written out; here they follow the width.

    Attributes:
      width: factor of all channels but the embedding's, which only grows with it.
      expansion: of the inverted residual blocks; the very first has 1.
    """

    width: float = 1.0
    expansion: int = 6

    stages: ClassVar[Sequence[Sequence[Group]]] = STAGES
    stem_stride: ClassVar[int] = 1
    always_expands: ClassVar[bool] = True
    activation: ClassVar = staticmethod(nn.relu)

    @property
    def num_stages(self) -> int:
        return len(STAGES)

    @property
    def stride(self) -> int:
        return 8

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        return self._conv_bn_relu(images, self._channels(_STEM_WIDTH), 3, "stem", train)

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        for place in self._places():
            if place.name.startswith(f"stage{number}_"):
                fields = {"dtype": self.dtype, "axis_name": self.axis_name}
                activation = type(self).activation
                x = InvertedResidual(**place._asdict(), activation=activation, **fields)(x, train)
        return x

    @nn.nowrap
    def _places(self) -> list[Place]:
        """All blocks."""
        places: list[Place] = []
        channels = self._channels(_STEM_WIDTH)
        for number in range(1, self.num_stages + self.extra_stages + 1):
            index = 0
            for group in self.stages[min(number, self.num_stages) - 1]:
                width = self._channels(group.width)
                for first in (True, *[False] * (group.blocks - 1)):
                    strided = first and number <= self.num_stages
                    stride = group.stride if strided else 1
                    expansion = self.expansion if places else 1
                    adds = stride == 1 and channels == width
                    name = f"stage{number}_block{index}"
                    expands = self.always_expands or expansion > 1
                    hidden = expansion * channels
                    places.append(Place(name, hidden, width, stride, adds, expands))
                    channels, index = width, index + 1
        return places

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        places = self._places()
        if places[0].adds and not places[0].expands:
            return ()  # the stem's channels go through a depthwise convolution and into a sum
        readers = [(f"{place.name}/expand_conv",) for place in places] + [("final_conv",)]
        added = [place.adds for place in places] + [False]
        links = [Link(("stem_conv",), ("stem_bn",), readers[0], shared=added[0])]
        for place, reader, goes_on in zip(places, readers[1:], added[1:], strict=True):
            inner, project = InvertedResidual.links(place)
            alone = not place.adds and not goes_on
            if place.expands:
                links.append(inner)
            else:  # the first block's depthwise convolution takes the stem's channels
                (stem,) = links
                convs, norms = stem.convs + inner.convs[1:], stem.norms + inner.norms[1:]
                links = [inner._replace(convs=convs, norms=norms)]
            links.append(project._replace(consumers=reader if alone else ()))
        return (*links, Link(("final_conv",), ("final_bn",), consumers=("classifier",)))

    @nn.nowrap
    def residual_groups(self) -> tuple[ResidualGroup, ...]:
        blocks = (
            Block(
                place.name,
                reads=(f"{place.name}/expand_conv",),
                norms=(),
                writes=(f"{place.name}/project_conv",),
                adds=place.adds,
            )
            for place in self._places()
        )
        return group_blocks("stem_conv", blocks, norms=(), consumers=("final_conv",))

    @nn.nowrap
    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        features = max(_FINAL_WIDTH, self._channels(_FINAL_WIDTH))
        return layers.global_average_pool(self._conv_bn_relu(x, features, 1, "final", train))

    @nn.nowrap
    def _conv_bn_relu(
        self, x: jax.Array, features: int, kernel_size: int, name: str, train: bool
    ) -> jax.Array:
        stride = self.stem_stride if name == "stem" else 1
        conv = layers.conv(features, kernel_size, stride, dtype=self.dtype, name=f"{name}_conv")
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=f"{name}_bn")
        return type(self).activation(norm(conv(x), train))

    @nn.nowrap
    def _channels(self, width: int) -> int:
        """Channels of a layer of this width at `self.width` 1."""
        return int(width * self.width)


register("mobilenetv2_half", MobileNetV2, width=0.5)
register("mobilenetv2", MobileNetV2)
