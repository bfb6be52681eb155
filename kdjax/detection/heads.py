"""The heads of a detector, on the maps of its feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.linear import Conv
from kdjax.numerics import at_least_float32

_SMALL = nn.initializers.normal(0.01)


class RegionProposalHead(nn.Module):
    """Objectness and box codes of all anchors: a 3x3 convolution and two 1x1 convolutions.

    All levels share the layers.

    Attributes:
      anchors: number of anchors per cell.
      dtype: compute dtype. Results are float32 at least.
    """

    anchors: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, C]` to objectness `[B, A]` and codes `[B, A, 4]` of all their anchors."""
        hidden = self._conv("conv", maps[0].shape[-1], 3)
        objectness = self._conv("objectness", self.anchors, 1)
        codes = self._conv("codes", 4 * self.anchors, 1)
        scores, boxes = [], []
        for x in maps:
            x = nn.relu(hidden(x))
            scores.append(objectness(x).reshape(len(x), -1))
            boxes.append(codes(x).reshape(len(x), -1, 4))
        return at_least_float32(jnp.concatenate(scores, 1)), at_least_float32(
            jnp.concatenate(boxes, 1)
        )

    def _conv(self, name: str, features: int, size: int) -> Conv:
        return layers.conv(
            features, size, use_bias=True, kernel_init=_SMALL, dtype=self.dtype, name=name
        )


class BoxHead(nn.Module):
    """Classes and box codes of regions: two hidden layers, a classifier and a box regressor.

    Attributes:
      num_classes: number of classes, without the background.
      features: size of the hidden layers.
      per_class: whether there are box codes for every class, or the same for all.
      dtype: compute dtype. Results are float32 at least.
    """

    num_classes: int
    features: int = 1024
    per_class: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pooled: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps features of regions `[..., h, w, C]` to logits `[..., K]`, codes `[..., K or 1, 4]`.

        K is `num_classes + 1`; class 0 is the background.
        """
        lead = pooled.shape[:-3]
        # Channels first, as PyTorch flattens.
        x = jnp.moveaxis(pooled, -1, -3).reshape(*lead, -1)
        for name in ("hidden1", "hidden2"):
            x = nn.relu(self._dense(x, self.features, name))
        logits = self._dense(x, self.num_classes + 1, "classifier")
        boxes = self.num_classes + 1 if self.per_class else 1
        codes = self._dense(x, 4 * boxes, "codes").reshape(*lead, boxes, 4)
        return at_least_float32(logits), at_least_float32(codes)

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        return layers.dense(x.shape[-1], features, dtype=self.dtype, name=name)(x)
