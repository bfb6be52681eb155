"""Convolution and fully connected layer, with the widths that a compact network gives them."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import channels, convolution, narrowing
from kdjax.models.initial_values import drawn

_ZEROS = nn.initializers.zeros_init()


class Conv(nn.Module):
    """A convolution `[B, H, W, C] -> [B, H', W', features]`; `kdjax.models.layers.conv` makes it.

    Fields and parameters are those of `flax.linen.Conv`. In a compact network the layer has the
    channels that are left of it there: `features` and `feature_group_count` are then the dense
    network's.

    Attributes:
      features: number of filters.
      kernel_size: height and width of the kernel.
      padding: pixels before and behind the image, along each side.
      strides: along each side.
      kernel_dilation: along each side.
      feature_group_count: number of groups of channels.
      use_bias: whether a bias is added.
      kernel_init: initializer of the kernel; a bias starts as zeros.
      dtype: compute dtype. Parameters are float32.
    """

    features: int
    kernel_size: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    strides: tuple[int, int] = (1, 1)
    kernel_dilation: tuple[int, int] = (1, 1)
    feature_group_count: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        narrow = narrowing.of_layer(self)
        features, groups = self.features, self.feature_group_count
        x = narrow.input_of(x, math.prod(self.kernel_size) * features)
        if narrow.filters is not None:
            features = int(narrow.filters.sum())
            if groups > 1:
                x, groups = self._groups_left(x, narrow.filters, narrow.first)
        y = self._convolve(x, features, groups)
        if narrow.folded:
            folded = self.param("folded", _ZEROS, (*self.kernel_size, 1, features), jnp.float32)
            y = y + channels.of_constant(self, folded, x.shape[1:3]).astype(y.dtype)
        return narrowing.widened(self, y)

    @nn.nowrap
    def _groups_left(self, x: jax.Array, filters: np.ndarray, whole: bool) -> tuple[jax.Array, int]:
        """The channels of `x` `[B, H, W, C]` whose groups have filters, and how many groups do.

        Args:
          x: the input, of all groups if `whole`.
          filters: `bool [features]`, those that are left.
          whole: whether `x` has channels of groups without filters.
        """
        if not whole:
            return x, int(filters.sum())
        groups = np.any(filters.reshape(self.feature_group_count, -1), axis=1)
        x = channels.select(x, np.repeat(groups, x.shape[-1] // len(groups)), 0)
        return x, int(groups.sum())

    @nn.nowrap
    def _convolve(self, x: jax.Array, features: int, groups: int) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1] // groups, features)
        kernel = self.param("kernel", drawn(self.kernel_init), shape, jnp.float32)
        bias = self.param("bias", _ZEROS, (features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolution.convolve(
            x,
            kernel,
            self.strides,
            self.padding,
            rhs_dilation=self.kernel_dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class Dense(nn.Module):
    """A fully connected layer `[..., C] -> [..., features]`; `kdjax.models.layers.dense` makes it.

    Fields and parameters are those of `flax.linen.Dense`. In a compact network the layer reads the
    channels that are left there.

    Attributes:
      features: number of outputs.
      use_bias: whether a bias is added.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      dtype: compute dtype. Parameters are float32.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = _ZEROS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = narrowing.of_layer(self).input_of(x, weights=0)
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", drawn(self.kernel_init), shape, jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param("bias", drawn(self.bias_init), (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
