"""HCGNets for 32x32 images: densely connected modules whose outputs are gated by global context.

Source: Yang et al. 2020, "Gated Convolutional Networks with Hybrid Connectivity for Image
Classification". Checked against MCL models/hcgnet.py and MCL-OKD models/hcgnet.py, which agree.
Those take images as square; here they need not be. As in those, convolutions start with
`torch.nn.Conv2d`'s own values.

For 32x32 images and 100 classes (multiply-adds in millions):

    name          parameters    multiply-adds
    hcgnet_a1      1,102,651           154.67
    hcgnet_a2      3,133,679           489.38

(The multiply-adds are the papers'; see `multiply_adds` on dilated convolutions.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.filters import Link
from kdjax.models.initial_values import drawn, uniform
from kdjax.models.registry import register
from kdjax.models.staged import StagedNetwork
from kdjax.numerics import accumulation_dtype

_BOTTLENECK = 4
_GROUPS = 4


class Gates(nn.Module):
    """A forget gate on the input plus an update from two receptive fields, shape `[B, H, W, C]`.

    The forget gate scales the channels of `x` by a function of its global context. The update is a
    vector per image, the same for all pixels: the global contexts of two depthwise convolutions of
    `x`, a plain and a dilated one, mixed channel by channel.

    Attributes:
      reduction: how many times fewer channels the hidden layers of both gates have.
    """

    reduction: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return x * self._forget(x, train) + self._update(x, train)

    @nn.nowrap
    def _forget(self, x: jax.Array, train: bool) -> jax.Array:
        """The forget gate of every channel, `[B, H, W, C] -> [B, 1, 1, C]` in (0, 1)."""
        context = self._context(x, "forget_context")
        hidden = self._linear(context, x.shape[-1] // self.reduction, "forget_fc1")
        hidden = nn.tanh(self._norm("forget_bn")(hidden, train))
        return nn.sigmoid(self._linear(hidden, x.shape[-1], "forget_fc2"))

    @nn.nowrap
    def _update(self, x: jax.Array, train: bool) -> jax.Array:
        """The update of every channel, `[B, H, W, C] -> [B, 1, 1, C]`."""
        channels = x.shape[-1]
        local = self._context(self._depthwise(x, 1, "local", train), "local_context")
        wide = self._context(self._depthwise(x, 2, "dilated", train), "dilated_context")
        both = jnp.concatenate([local, wide], axis=-1)
        hidden = self._linear(both, 2 * channels // self.reduction, "update_fc")
        hidden = nn.tanh(self._norm("update_bn")(hidden, train))
        # A softmax over two scores is the sigmoid of their difference.
        score = self._linear(hidden, channels, "local_score")
        score -= self._linear(hidden, channels, "dilated_score")
        return nn.sigmoid(score) * local + nn.sigmoid(-score) * wide

    @nn.nowrap
    def _depthwise(self, x: jax.Array, dilation: int, name: str, train: bool) -> jax.Array:
        """BatchNorm, ReLU and a 3x3 convolution of every channel by itself; shape as `x`."""
        channels = x.shape[-1]
        conv = layers.conv(
            channels,
            groups=channels,
            dilation=dilation,
            kernel_init=layers.UNIFORM_INIT,
            dtype=self.dtype,
            name=f"{name}_conv",
        )
        return conv(nn.relu(self._norm(f"{name}_bn")(x, train)))

    @nn.nowrap
    def _context(self, x: jax.Array, name: str) -> jax.Array:
        """The mean of the pixels, weighted by their softmax score, `-> [B, 1, 1, C]`."""
        wide = accumulation_dtype(x.dtype)
        weights = nn.softmax(self._linear(x, 1, name).astype(wide), axis=(1, 2))
        return (x * weights).sum((1, 2), keepdims=True).astype(x.dtype)

    @nn.nowrap
    def _linear(self, x: jax.Array, features: int, name: str) -> jax.Array:
        """A 1x1 convolution with bias, `[B, H, W, C] -> [B, H, W, features]`."""
        start = drawn(uniform(x.shape[-1] ** -0.5))
        fields: dict[str, Any] = {"kernel_init": start, "bias_init": start}
        return nn.Conv(features, (1, 1), dtype=self.dtype, name=name, **fields)(x)

    @nn.nowrap
    def _norm(self, name: str) -> layers.BatchNorm:
        return layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)


class GatedConv(nn.Module):
    """A pre-activation 1x1 and 3x3 convolution and gates.

    `[B, H, W, C] -> [B, H / stride, W / stride, width]`.

    Attributes:
      width: channels of the 3x3 convolution and of the output.
      hidden: channels of the 1x1 convolution.
      stride: of the 3x3 convolution.
      groups: of the 3x3 convolution.
      reduction: of the gates.
    """

    width: int
    hidden: int
    stride: int
    groups: int
    reduction: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        fields = {"dtype": self.dtype, "axis_name": self.axis_name}
        start = {"dtype": self.dtype, "kernel_init": layers.UNIFORM_INIT}
        x = nn.relu(layers.BatchNorm(name="bn1", **fields)(x, train))
        x = layers.conv(self.hidden, 1, name="conv1", **start)(x)
        x = nn.relu(layers.BatchNorm(name="bn2", **fields)(x, train))
        x = layers.conv(self.width, 3, self.stride, groups=self.groups, name="conv2", **start)(x)
        return Gates(self.reduction, name="gates", **fields)(x, train)


class HCGNet(StagedNetwork):
    """A stage is a hybrid block and, but for the last, the transition that follows it.

    A hybrid block is a number of gated convolutions (the paper's SMG modules), each of which puts
    its output behind its input. A transition halves resolution and channels.

    Feature maps are the transitions' outputs, and the concatenation at the end of the last block
    before BatchNorm. An extra stage is one more hybrid block of as many modules and the growth of
    the last one, on the last map: the map grows on.

    Attributes:
      blocks: number of SMG modules of each stage.
      growth: channels that a module of each stage adds, multiples of 4. The first convolution has
        twice as many as the first.
    """

    blocks: Sequence[int] = (8, 8, 8)
    growth: Sequence[int] = (12, 24, 36)

    @property
    def num_stages(self) -> int:
        return len(self.blocks)

    @property
    def stride(self) -> int:
        return 2 ** (len(self.blocks) - 1)

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        del train  # the first BatchNorm is that of the first module
        width = 2 * self.growth[0]
        start = layers.UNIFORM_INIT
        return layers.conv(width, kernel_init=start, dtype=self.dtype, name="stem_conv")(images)

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        kind = min(number, self.num_stages) - 1
        fields = {"dtype": self.dtype, "axis_name": self.axis_name}
        for index in range(self.blocks[kind]):
            growth = self.growth[kind]
            new = GatedConv(
                width=growth,
                hidden=_BOTTLENECK * growth,
                stride=1,
                groups=_GROUPS,
                reduction=2,
                name=f"stage{number}_smg{index}",
                **fields,
            )(x, train)
            x = jnp.concatenate([x, new], axis=-1)
        if number < self.num_stages:
            channels = x.shape[-1]
            x = GatedConv(
                width=channels // 2,
                hidden=channels - (channels - channels // 2) // 2,
                stride=2,
                groups=1,
                reduction=4,
                name=f"stage{number}_transition",
                **fields,
            )(x, train)
        return x

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        links = [Link(("stem_conv",), ("",))]
        for number in range(1, self.num_stages + self.extra_stages + 1):
            count = self.blocks[min(number, self.num_stages) - 1]
            names = [(f"stage{number}_smg{index}", _GROUPS) for index in range(count)]
            if number < self.num_stages:
                names.append((f"stage{number}_transition", 1))
            for name, groups in names:
                conv1, conv2 = f"{name}/conv1", f"{name}/conv2"
                # The second one is read by the gates.
                links += [
                    Link((conv1,), (f"{name}/bn2",), (conv2,) if groups == 1 else ()),
                    Link((conv2,), ("",), groups=groups),
                ]
        return tuple(links)

    @nn.nowrap
    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="final_bn")
        return layers.global_average_pool(nn.relu(norm(x, train)))


register("hcgnet_a1", HCGNet)
register("hcgnet_a2", HCGNet, growth=(24, 36, 64))
