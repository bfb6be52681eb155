"""ShuffleNetV2 for 32x32 images and for ImageNet: split channels, convolve one half, shuffle.

Source: Ma et al. 2018, in three forms that differ only before the first unit:

    names               stem                           official file
    shufflenetv2_*      3x3                            MCL models/shufflenetv2.py, L-MCL
                                                       models/shufflenetv2_cifar.py
    hsakd_*             1x1                            HSAKD models/ShuffleNetv2.py
    *_imagenet          3x3 at stride 2, max pool      L-MCL models/shufflenetv2_imagenet.py

Widths are those of the official files. At 2x their first stage has 224 channels; the paper says
244, as does torchvision, whose network is `shufflenetv2_2x_torchvision`. At other widths
torchvision's are the same as `*_imagenet`.

For 100 classes at 32x32, and 1000 classes at 224x224 (multiply-adds in millions):

    name                        parameters    multiply-adds
    shufflenetv2_05x               444,292            10.99
    shufflenetv2_1x              1,356,104            45.09
    shufflenetv2_15x             2,581,124            94.35
    shufflenetv2_2x              5,522,436           181.83
    hsakd_shufflenetv2_05x         443,716            10.40
    hsakd_shufflenetv2_1x        1,355,528            44.50
    shufflenetv2_05x_imagenet    1,366,792            40.48
    shufflenetv2_1x_imagenet     2,278,604           144.91
    shufflenetv2_15x_imagenet    3,503,624           295.76
    shufflenetv2_2x_imagenet     7,366,536           564.37
    shufflenetv2_2x_torchvision 7,393,996           583.25
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.filters import Link
from kdjax.models.registry import register
from kdjax.models.staged import StagedNetwork

_STEM_WIDTH = 24


class SplitShuffleUnit(nn.Module):
    """Two halves of the channels, of which one or both are convolved, then shuffled.

    A unit inside a stage, `[B, H, W, width] -> [B, H, W, width]`, keeps the first half of its
    channels. The first unit of a stage, `[B, H, W, C] -> [B, H / stride, W / stride, width]`,
    convolves its whole input twice: depthwise 3x3 and 1x1 in the shortcut, and the 1x1, depthwise
    3x3, 1x1 that every unit has.

    Attributes:
      width: number of output channels.
      first: whether this is the first unit of a stage.
      stride: of the depthwise convolutions.
    """

    width: int
    first: bool = False
    stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        half = self.width // 2
        if self.first:
            kept = self._depthwise(x, "shortcut_", 1, train)
            kept = nn.relu(self._pointwise(kept, half, "shortcut_", 2, train))
        else:
            kept, x = x[..., :half], x[..., half:]
        y = nn.relu(self._pointwise(x, half, "", 1, train))
        y = self._depthwise(y, "", 2, train)
        y = nn.relu(self._pointwise(y, half, "", 3, train))
        return layers.channel_shuffle(jnp.concatenate([kept, y], axis=-1), 2)

    @classmethod
    def links(cls, name: str, first: bool) -> tuple[Link, ...]:
        """The links of a unit."""
        links = [
            Link(
                (f"{name}/conv1", f"{name}/conv2"),
                (f"{name}/bn1", f"{name}/bn2"),
                consumers=(f"{name}/conv3",),
                relu=False,
            ),
            Link((f"{name}/conv3",), (f"{name}/bn3",)),
        ]
        if first:
            conv, norm = f"{name}/shortcut_conv", f"{name}/shortcut_bn"
            links += [
                Link((f"{conv}1",), (f"{norm}1",), consumers=(f"{conv}2",), relu=False),
                Link((f"{conv}2",), (f"{norm}2",)),
            ]
        return tuple(links)

    @nn.nowrap
    def _pointwise(
        self, x: jax.Array, features: int, prefix: str, number: int, train: bool
    ) -> jax.Array:
        """A 1x1 convolution and BatchNorm."""
        x = layers.conv(features, 1, dtype=self.dtype, name=f"{prefix}conv{number}")(x)
        return self._norm(f"{prefix}bn{number}")(x, train)

    @nn.nowrap
    def _depthwise(self, x: jax.Array, prefix: str, number: int, train: bool) -> jax.Array:
        """A 3x3 convolution of every channel by itself, and BatchNorm."""
        channels = x.shape[-1]
        name = f"{prefix}conv{number}"
        conv = layers.conv(channels, 3, self.stride, groups=channels, dtype=self.dtype, name=name)
        return self._norm(f"{prefix}bn{number}")(conv(x), train)

    @nn.nowrap
    def _norm(self, name: str) -> layers.BatchNorm:
        return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)


class ShuffleNetV2(StagedNetwork):
    """Three stages of units, each halving the resolution, and a last 1x1 convolution.

    Attributes:
      widths: output channels of each stage of units.
      final_width: channels of the last convolution, which are those of the embedding.
      blocks: number of units of each stage.
      stem_size: kernel size of the first convolution.
    """

    widths: Sequence[int] = (116, 232, 464)
    final_width: int = 1024
    blocks: Sequence[int] = (4, 8, 4)
    stem_size: int = 3

    stem_stride = 1
    first_stage_of_units = 1

    @property
    def num_stages(self) -> int:
        return len(self.blocks)

    @property
    def stride(self) -> int:
        return self.stem_stride * 2 ** len(self.blocks)

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        conv = layers.conv(
            _STEM_WIDTH, self.stem_size, self.stem_stride, dtype=self.dtype, name="stem_conv"
        )
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="stem_bn")
        return nn.relu(norm(conv(images), train))

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        kind = min(number, self.num_stages) - 1
        for index in range(self.blocks[kind]):
            x = SplitShuffleUnit(
                width=self.widths[kind],
                first=index == 0,
                stride=2 if number <= self.num_stages and index == 0 else 1,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"stage{number}_block{index}",
            )(x, train)
        return x

    @nn.nowrap
    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        x = layers.conv(self.final_width, 1, dtype=self.dtype, name="final_conv")(x)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="final_bn")
        return layers.global_average_pool(nn.relu(norm(x, train)))

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        stages = range(self.first_stage_of_units, self.num_stages + self.extra_stages + 1)
        links = [
            Link(
                ("stem_conv",),
                ("stem_bn",),
                consumers=(f"stage{stages[0]}_block0/conv1",),
                shared=True,
            )
        ]
        for number in stages:
            for index in range(self.blocks[min(number, self.num_stages) - 1]):
                links += SplitShuffleUnit.links(f"stage{number}_block{index}", index == 0)
        return (*links, Link(("final_conv",), ("final_bn",), consumers=("classifier",)))


class ImageNetShuffleNetV2(ShuffleNetV2):
    """The form for large images: a stem at stride 2, and the max pool after it as stage 1.

    The pool is a stage of its own, without parameters, because L-MCL's first branch starts from it.
    The first entries of `widths` and `blocks` stand for it and change nothing.
    """

    widths: Sequence[int] = (_STEM_WIDTH, 116, 232, 464)
    blocks: Sequence[int] = (1, 4, 8, 4)

    stem_stride = 2
    first_stage_of_units = 2

    @property
    def image_size(self) -> int:
        return 224

    @nn.nowrap
    def branch_fields(self, form: str, stage: int) -> dict[str, Any]:
        return {"blocks": (1, 2, 2, 2)} if (form, stage) == ("lmcl", 1) else {}

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        if number == 1:
            return layers.max_pool(x, 3, stride=2, padding=1)
        return super().stage(x, number, train)


_SIZES = {
    "05x": ((48, 96, 192), 1024),
    "1x": ((116, 232, 464), 1024),
    "15x": ((176, 352, 704), 1024),
    "2x": ((224, 488, 976), 2048),
}
for _size, (_widths, _final_width) in _SIZES.items():
    register(f"shufflenetv2_{_size}", ShuffleNetV2, widths=_widths, final_width=_final_width)
    register(
        f"shufflenetv2_{_size}_imagenet",
        ImageNetShuffleNetV2,
        widths=(_STEM_WIDTH, *_widths),
        final_width=_final_width,
    )
register(
    "shufflenetv2_2x_torchvision",
    ImageNetShuffleNetV2,
    widths=(_STEM_WIDTH, 244, 488, 976),
    final_width=2048,
)
for _size in ("05x", "1x"):
    register(f"hsakd_shufflenetv2_{_size}", ShuffleNetV2, widths=_SIZES[_size][0], stem_size=1)
