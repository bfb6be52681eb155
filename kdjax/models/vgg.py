"""VGG for small images: five blocks of 3x3 convolutions, each with BatchNorm and ReLU.

Source: Simonyan and Zisserman 2015, configurations A, B, D and E (and `vgg8`, one convolution a
block), without the hidden fully connected layers and with BatchNorm after every convolution. The
convolutions keep their biases, as in the papers' code. Two variants go by the name of VGG-16, with
equal parameters:

- `VGG`, of RepDistiller and HSAKD (models/vgg.py, `vgg8_bn` to `vgg19_bn`): max pooling between the
  first four blocks, average pooling at the end. The variants without BatchNorm are not here.
- `MaxPoolVGG`, of MCL-OKD (models/vgg.py): max pooling after every block, the last one included.

For 100 classes (multiply-adds in millions, for 32x32 and for 64x64 images):

    name             parameters    32x32      64x64
    vgg8              3,965,028    96.19     271.37
    vgg11             9,277,284   209.44     611.11
    vgg13             9,462,180   284.94     913.10
    vgg16            14,774,436   398.18    1252.84
    vgg19            20,086,692   511.43    1592.58
    vgg16_maxpool    14,774,436   313.25    1252.84
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.conv_norm import conv_norm
from kdjax.models.filters import Link
from kdjax.models.registry import register
from kdjax.models.staged import StagedNetwork

_WIDTHS = (64, 128, 256, 512, 512)
# Pixels, along the shorter side, from which on `VGG` pools before its last block.
_LAST_POOL_FROM = 8


class ConvBlock(nn.Module):
    """3x3 convolution, BatchNorm, ReLU, `convs` times: `[B, H, W, C] -> [B, H, W, width]`."""

    width: int
    convs: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for index in range(1, self.convs + 1):
            conv = layers.conv(self.width, use_bias=True, dtype=self.dtype, name=f"conv{index}")
            norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=f"bn{index}")
            x = conv_norm(conv, norm, x, train, relu=True)
        return x


def _chain(blocks: Iterable[tuple[str, int]]) -> tuple[Link, ...]:
    """The links of blocks in their order: (name, number of convolutions)."""
    places = [(block, number) for block, convs in blocks for number in range(1, convs + 1)]
    readers = [f"{block}/conv{number}" for block, number in places[1:]]
    return tuple(
        Link((f"{block}/conv{number}",), (f"{block}/bn{number}",), consumers=(reader,))
        for (block, number), reader in zip(places, [*readers, "classifier"], strict=True)
    )


class VGG(StagedNetwork):
    """Four stages: a block each, but two in the last; every stage but the first begins with a pool.

    Between the two blocks of the last stage there is a pool only for images of 64 pixels or more:
    images of 32 pixels and of 64 both end at 4x4, those of 96 at 6x6, those of 224 at 14x14, where
    the original network's last block works. The official code pools there for a height of exactly
    64, so that the two agree for square images up to that size. The network decides by the map that
    it finds there (8 pixels or more along the shorter side), so that a part of it computes what the
    whole computes.

    HSAKD's auxiliary branches never have that pool, which is what `last_pool=False` is for. An
    extra stage is the two blocks of the last stage again, without any pool.

    Attributes:
      convs: number of convolutions of each of the five blocks.
      widths: channels of each block.
      last_pool: whether there is a pool between the blocks of the last stage; None decides by size.
    """

    convs: Sequence[int] = (1, 1, 1, 1, 1)
    widths: Sequence[int] = _WIDTHS
    last_pool: bool | None = None

    @property
    def num_stages(self) -> int:
        return 4

    @property
    def stride(self) -> int:
        """Of images below 64 pixels; twice this where the last pool is."""
        return 8

    @nn.nowrap
    def branch_fields(self, form: str, stage: int) -> dict[str, Any]:
        del stage
        return {"last_pool": False} if form == "hsakd" else {}

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        del train  # the first block is stage 1
        return images

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        if 1 < number <= self.num_stages:
            x = layers.max_pool(x, 2, 2)
        kind = min(number, self.num_stages) - 1
        x = self._block(kind, f"stage{number}_block0")(x, train)
        if number < self.num_stages:
            return x
        if number == self.num_stages and self._pools_last(x):
            x = layers.max_pool(x, 2, 2)
        return self._block(kind + 1, f"stage{number}_block1")(x, train)

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        blocks = []
        for number in range(1, self.num_stages + self.extra_stages + 1):
            kind = min(number, self.num_stages) - 1
            blocks.append((f"stage{number}_block0", self.convs[kind]))
            if number >= self.num_stages:
                blocks.append((f"stage{number}_block1", self.convs[kind + 1]))
        return _chain(blocks)

    @nn.nowrap
    def _pools_last(self, x: jax.Array) -> bool:
        if self.last_pool is None:
            return min(x.shape[1:3]) >= _LAST_POOL_FROM
        return self.last_pool

    @nn.nowrap
    def _block(self, index: int, name: str) -> ConvBlock:
        return ConvBlock(
            self.widths[index], self.convs[index], self.dtype, self.axis_name, name=name
        )


class MaxPoolVGG(StagedNetwork):
    """Five stages: a block and a pool each.

    32-pixel images end at a single pixel, which is the embedding. The official code stops at larger
    maps; here they are averaged. Its online methods share the first three stages (DML, MCL-OKD) or
    four (ONE, OKDDip). An extra stage is the last block again, without a pool.

    Attributes:
      convs: number of convolutions of each block.
      widths: channels of each block.
    """

    convs: Sequence[int] = (1, 1, 1, 1, 1)
    widths: Sequence[int] = _WIDTHS

    @property
    def num_stages(self) -> int:
        return 5

    @property
    def stride(self) -> int:
        return 32

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        del train  # the first block is stage 1
        return images

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        kind = min(number, self.num_stages) - 1
        x = ConvBlock(
            self.widths[kind],
            self.convs[kind],
            self.dtype,
            self.axis_name,
            name=f"stage{number}_block0",
        )(x, train)
        return layers.max_pool(x, 2, 2) if number <= self.num_stages else x

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        counts = [*self.convs, *[self.convs[-1]] * self.extra_stages]
        return _chain((f"stage{n}_block0", count) for n, count in enumerate(counts, start=1))


_CONVS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
for _depth, _convs in _CONVS.items():
    register(f"vgg{_depth}", VGG, convs=_convs)
register("vgg16_maxpool", MaxPoolVGG, convs=_CONVS[16])
