"""Feature pyramid networks (Lin et al., CVPR 2017, section 3), in torchvision's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import layers
from kdjax.models.initial_values import variance_scaling
from kdjax.models.linear import Conv

# Uniform in +-sqrt(3 / fan_in): torch.nn.init.kaiming_uniform_(a=1).
_KERNEL_INIT = variance_scaling(1.0, "fan_in", "uniform")


def nearest(x: jax.Array, height: int, width: int) -> jax.Array:
    """`[B, H, W, C] -> [B, height, width, C]`: pixel i is pixel `i * H // height`."""
    rows = np.arange(height) * x.shape[1] // height
    columns = np.arange(width) * x.shape[2] // width
    return x[:, rows][:, :, columns]


class FeaturePyramid(nn.Module):
    """A top-down pyramid: every map is summed with the upsampled coarser ones.

    Attributes:
      features: channels of every output map.
      dtype: compute dtype.
    """

    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Runs the pyramid.

        Args:
          maps: `[B, H, W, C]`, from fine to coarse.

        Returns:
          Maps `[B, H, W, features]` of the same sizes, and every second pixel of the last one.
        """
        lateral = [self._conv(f"lateral{number}", 1)(x) for number, x in enumerate(maps, start=1)]
        merged = [lateral[-1]]
        for x in reversed(lateral[:-1]):
            merged.append(x + nearest(merged[-1], *x.shape[1:3]))
        outputs = [
            self._conv(f"output{number}", 3)(x) for number, x in enumerate(merged[::-1], start=1)
        ]
        return (*outputs, outputs[-1][:, ::2, ::2])

    def _conv(self, name: str, size: int) -> Conv:
        return layers.conv(
            self.features,
            size,
            use_bias=True,
            kernel_init=_KERNEL_INIT,
            dtype=self.dtype,
            name=name,
        )
