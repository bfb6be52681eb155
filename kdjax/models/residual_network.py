"""Networks whose stages are rows of residual blocks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax

from kdjax.models import layers
from kdjax.models.filters import Link, ResidualGroup, group_blocks
from kdjax.models.residual_blocks import (
    PADDINGS,
    BasicBlock,
    BottleneckBlock,
    Place,
    PreActivationBlock,
    ResidualBlock,
    places,
)
from kdjax.models.staged import StagedNetwork

_BLOCKS: dict[str, type[ResidualBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
    "preactivation": PreActivationBlock,
}
_FIELDS = {"preactivation": {"activated_identity": True}}


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
        for place in self._places()[number]:
            x = _BLOCKS[self.block](
                width=self.widths[min(number, self.num_stages) - 1],
                stride=place.stride,
                shortcut=self.shortcut,
                widens=place.widens,
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
        return places(self.blocks, self.extra_stages, self.stem_width != outputs)

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        kind, (first, *others) = _BLOCKS[self.block], itertools.chain(*self._places().values())
        stem = Link(("stem_conv",), ("stem_bn",))
        if not kind.preactivation:  # that would read it through a second BatchNorm
            padding = self.shortcut in PADDINGS
            readers = kind.reads_and_writes(first).reads
            stem = stem._replace(
                consumers=readers[:1] if padding else readers,
                shared=padding or not first.reshapes,
            )
        blocks = [link for each in (first, *others) for link in kind.links(each, self.shortcut)]
        return (stem, *blocks)

    @nn.nowrap
    def residual_groups(self) -> tuple[ResidualGroup, ...]:
        if self.shortcut in PADDINGS:
            return ()  # channels of one sum are channels of the next
        every = itertools.chain(*self._places().values())
        blocks = map(_BLOCKS[self.block].reads_and_writes, every)
        return group_blocks("stem_conv", blocks, norms=(), consumers=("classifier",))
