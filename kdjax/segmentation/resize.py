"""Bilinear resizing of maps, with `align_corners` or without."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.numerics import at_least_float32


def bilinear(x: jax.Array, height: int, width: int, *, align_corners: bool = False) -> jax.Array:
    """Resizes maps `[B, H, W, C]` to `[B, height, width, C]`, in float32 at least.

    A pixel of the result is the mean of the four nearest pixels, weighted by distance; maps that
    shrink are not smoothed. Each axis is resized by a matrix product, and so are its gradients.

    Source: `torch.nn.functional.interpolate(mode='bilinear')`.

    Args:
      x: `[B, H, W, C]`.
      height, width: of the result.
      align_corners: whether the centers of the corner pixels of both maps coincide. Otherwise their
        outer edges do, and the border pixels are repeated beyond their centers.

    Returns:
      `[B, height, width, C]`
    """
    x = at_least_float32(x)
    rows, columns = (
        jnp.asarray(_weights(*sizes, align_corners), x.dtype)
        for sizes in ((x.shape[1], height), (x.shape[2], width))
    )
    x = jnp.einsum("ah,bhwc->bawc", rows, x, precision="highest")
    return jnp.einsum("dw,bawc->badc", columns, x, precision="highest")


def _weights(before: int, after: int, align_corners: bool) -> np.ndarray:
    """The matrix `[after, before]` of one axis."""
    rows = np.arange(after)
    if align_corners:
        source = rows * ((before - 1) / max(after - 1, 1))
    else:
        source = np.maximum((rows + 0.5) * (before / after) - 0.5, 0)
    low = np.minimum(source.astype(int), before - 1)
    fraction = np.minimum(source - low, 1)
    weights = np.zeros((after, before))
    weights[rows, low] += 1 - fraction
    weights[rows, np.minimum(low + 1, before - 1)] += fraction
    return weights
