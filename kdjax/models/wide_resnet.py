"""Wide ResNets for 32x32 images: pre-activation blocks, three stages.

Source: Zagoruyko and Komodakis 2016 (without dropout). Checked against HSAKD models/wrn.py and MCL
models/wrn.py, which agree.

For 32x32 images and 100 classes (multiply-adds in millions):

    name          parameters    multiply-adds
    wrn_16_1         180,916            26.66
    wrn_16_2         703,284           101.12
    wrn_28_4       5,872,180           845.62
    wrn_40_1         569,780            83.29
    wrn_40_2       2,255,156           327.61
"""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax

from kdjax.models import layers
from kdjax.models.filters import Link, ResidualGroup, group_blocks
from kdjax.models.places import Place, halvings, places
from kdjax.models.registry import register
from kdjax.models.residual_blocks import PreActivationBlock
from kdjax.models.staged import StagedNetwork

_STEM_WIDTH = 16


class WideResNet(StagedNetwork):
    """WRN-depth-widen_factor. Feature maps are the sums of the residual blocks, before BatchNorm.

    The identity shortcuts start from the blocks' inputs, the convolutions from the activated ones.

    Attributes:
      depth: 6 n + 4 for n blocks per stage.
      widen_factor: channels are 16, 32, 64 times this.
      output_stride: as of `ResidualNetwork`: 1, 2, 4, or 0 for 4.
    """

    depth: int = 16
    widen_factor: int = 1
    output_stride: int = 0

    @property
    def num_stages(self) -> int:
        return 3

    @property
    def stride(self) -> int:
        return 2 ** self._halvings()

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        del train  # the first BatchNorm is that of the first block
        return layers.conv(_STEM_WIDTH, dtype=self.dtype, name="stem_conv")(images)

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        kind, block = min(number, self.num_stages) - 1, self.block_of(PreActivationBlock)
        for place in self._places()[number]:
            x = block(
                width=_STEM_WIDTH * self.widen_factor * 2**kind,
                stride=place.stride,
                widens=place.widens,
                dilations=place.dilations,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=place.name,
            )(x, train)
        return x

    @nn.nowrap
    def _places(self) -> dict[int, list[Place]]:
        """The blocks of every stage."""
        blocks = ((self.depth - 4) // 6,) * self.num_stages
        return places(blocks, self.extra_stages, self.widen_factor != 1, self._halvings())

    @nn.nowrap
    def _halvings(self) -> int:
        return halvings(self.num_stages, 1, self.output_stride)

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        kind, blocks = PreActivationBlock, list(itertools.chain(*self._places().values()))
        stem = Link(("stem_conv",), ("",))
        if blocks[0].reshapes:  # all readers of the stem share one BatchNorm
            first = kind.reads_and_writes(blocks[0])
            stem = Link(("stem_conv",), first.norms, consumers=first.reads)
        return (stem, *(link for place in blocks for link in kind.links(place, "convolution")))

    @nn.nowrap
    def residual_groups(self) -> tuple[ResidualGroup, ...]:
        all_places = itertools.chain(*self._places().values())
        blocks = map(PreActivationBlock.reads_and_writes, all_places)
        return group_blocks("stem_conv", blocks, norms=("final_bn",), consumers=("classifier",))

    @nn.nowrap
    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="final_bn")
        return layers.global_average_pool(nn.relu(norm(x, train)))


for _depth, _widen_factor in ((16, 1), (16, 2), (28, 4), (40, 1), (40, 2)):
    register(f"wrn_{_depth}_{_widen_factor}", WideResNet, depth=_depth, widen_factor=_widen_factor)
