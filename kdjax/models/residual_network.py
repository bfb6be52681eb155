"""Networks whose stages are rows of residual blocks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from kdjax.models import layers
from kdjax.models.conv_norm import conv_norm
from kdjax.models.filters import Link, ResidualGroup, group_blocks
from kdjax.models.places import Place, halvings, places
from kdjax.models.residual_blocks import (
    PADDINGS,
    BasicBlock,
    BottleneckBlock,
    PreActivationBlock,
    ResidualBlock,
)
from kdjax.models.staged import StagedNetwork

_BLOCKS: dict[str, type[ResidualBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
    "preactivation": PreActivationBlock,
}
_FIELDS: dict[str, dict[str, Any]] = {"preactivation": {"activated_identity": True}}


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
      shortcut: 'projection', 'convolution', 'padding' or 'centered_padding', see
        `ResidualBlock`.
      output_stride: pixels of the image per pixel of the last feature map, along one side; 0: as
        the stages have it. With a smaller one the last stages are dilated in place of strided
        (`places`): the same parameters, larger feature maps.
    """

    blocks: Sequence[int] = (3, 3, 3)
    widths: Sequence[int] = (16, 32, 64)
    stem_width: int = 16
    block: str = "basic"
    shortcut: str = "projection"
    output_stride: int = 0

    @property
    def num_stages(self) -> int:
        return len(self.blocks)

    @property
    def stem_stride(self) -> int:
        """Pixels of the image per pixel of the stem's output, along one side."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        return self.stem_stride * 2 ** self._halvings()

    @nn.nowrap
    def stem_layers(
        self, images: jax.Array, size: int, stride: int, train: bool, *, relu: bool
    ) -> jax.Array:
        """The first convolution, its BatchNorm, and ReLU if `relu`."""
        conv = layers.conv(self.stem_width, size, stride, dtype=self.dtype, name="stem_conv")
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="stem_bn")
        return conv_norm(conv, norm, images, train, relu=relu)

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        block = self.block_of(_BLOCKS[self.block])
        for place in self._places()[number]:
            x = block(
                width=self.widths[min(number, self.num_stages) - 1],
                stride=place.stride,
                shortcut=self.shortcut,
                widens=place.widens,
                dilations=place.dilations,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=place.name,
                **_FIELDS.get(self.block, {}),
            )(x, train)
        return x

    @nn.nowrap
    def _places(self) -> dict[int, list[Place]]:
        """The blocks of every stage."""
        outputs = _BLOCKS[self.block].outputs_per_width * self.widths[0]
        widens = self.stem_width != outputs
        return places(self.blocks, self.extra_stages, widens, self._halvings())

    @nn.nowrap
    def _halvings(self) -> int:
        return halvings(self.num_stages, self.stem_stride, self.output_stride)

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        kind, (first, *others) = _BLOCKS[self.block], itertools.chain(*self._places().values())
        stem = Link(("stem_conv",), ("stem_bn",))
        if not kind.preactivation:  # that would read it through a second BatchNorm
            padding = self.shortcut in PADDINGS
            consumers = kind.reads_and_writes(first).reads
            stem = stem._replace(
                consumers=consumers[:1] if padding else consumers,
                shared=padding or not first.reshapes,
            )
        blocks = [link for place in (first, *others) for link in kind.links(place, self.shortcut)]
        return (stem, *blocks)

    @nn.nowrap
    def residual_groups(self) -> tuple[ResidualGroup, ...]:
        if self.shortcut in PADDINGS:
            return ()  # channels of one sum are channels of the next
        all_places = itertools.chain(*self._places().values())
        blocks = map(_BLOCKS[self.block].reads_and_writes, all_places)
        return group_blocks("stem_conv", blocks, norms=(), consumers=("classifier",))
