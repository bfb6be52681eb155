"""The heads of DeepLabV3: the atrous pyramid, the segmentation head and the auxiliary head.

Source: Chen et al. 2017 (arXiv 1706.05587), section 3.3; torchvision
models/segmentation/deeplabv3.py and fcn.py.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.numerics import accumulation_dtype


class _Layers(nn.Module):
    """Layers with common settings.

    Attributes:
      dtype: compute dtype; parameters are float32.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.nowrap
    def block(
        self, x: jax.Array, features: int, size: int, train: bool, dilation: int = 1, name: str = ""
    ) -> jax.Array:
        """Convolution, BatchNorm, ReLU: `[B, H, W, C] -> [B, H, W, features]`."""
        x = layers.conv(
            features,
            size,
            dilation=dilation,
            kernel_init=layers.UNIFORM_INIT,
            dtype=self.dtype,
            name=f"{name}conv",
        )(x)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=f"{name}bn")
        return nn.relu(norm(x, train))

    @nn.nowrap
    def classify(self, x: jax.Array, num_classes: int) -> jax.Array:
        """A 1x1 convolution to logits, in float32 at least."""
        return layers.conv(
            num_classes,
            1,
            use_bias=True,
            kernel_init=layers.UNIFORM_INIT,
            dtype=accumulation_dtype(self.dtype),
            name="classifier",
        )(x)


class AtrousPyramid(_Layers):
    """Atrous spatial pyramid pooling, `[B, H, W, C] -> [B, H, W, width]`.

    A 1x1 convolution, three dilated 3x3 convolutions and the mean over positions are concatenated;
    a 1x1 convolution and dropout follow.

    Attributes:
      width: channels of every branch and of the result.
      rates: dilations.
      dropout: dropout probability.
    """

    width: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        branches = [self.block(x, self.width, 1, train, name="point_")]
        for index, rate in enumerate(self.rates, start=1):
            branches.append(self.block(x, self.width, 3, train, rate, name=f"rate{index}_"))
        pooled = layers.global_average_pool(x)[:, None, None]
        pooled = self.block(pooled, self.width, 1, train, name="pool_")
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = self.block(jnp.concatenate(branches, axis=-1), self.width, 1, train, name="project_")
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class DeepLabHead(_Layers):
    """Maps the last feature map `[B, h, w, C]` to logits `[B, h, w, num_classes]`.

    Attributes:
      num_classes: number of classes.
      width, rates, dropout: as of `AtrousPyramid`.
      head_dropout: dropout probability before the logits.
    """

    num_classes: int = 21
    width: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    dropout: float = 0.5
    head_dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = AtrousPyramid(
            self.dtype, self.axis_name, self.width, self.rates, self.dropout, name="aspp"
        )(x, train)
        x = self.block(x, self.width, 3, train)
        x = nn.Dropout(self.head_dropout, deterministic=not train)(x)
        return self.classify(x, self.num_classes)


class AuxiliaryHead(_Layers):
    """Maps an earlier feature map `[B, h, w, C]` to logits `[B, h, w, num_classes]`.

    A 3x3 convolution to C / 4 channels, dropout and a 1x1 convolution.

    Attributes:
      num_classes: number of classes.
      dropout: dropout probability before the logits.
    """

    num_classes: int = 21
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = self.block(x, max(1, x.shape[-1] // 4), 3, train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self.classify(x, self.num_classes)
