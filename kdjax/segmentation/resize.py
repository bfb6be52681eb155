"""Bilinear resizing of maps with either convention of where pixels lie."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.numerics import at_least_float32


def bilinear(x: jax.Array, height: int, width: int, *, align_corners: bool = False) -> jax.Array:
    """Resizes maps `[B, H, W, C]` to `[B, height, width, C]`, in float32 at least.

    A pixel of the result is the mean of the four nearest ones, weighted by distance; nothing is
    smoothed where maps shrink. Every axis is one multiplication with a matrix, whose gradient is
    one, too.

    Source: `torch.nn.functional.interpolate(mode='bilinear')`.

    Args:
      x: `[B, H, W, C]`.
      height, width: of the result.
      align_corners: whether the centers of the corner pixels stay in their places. Otherwise the
        outer edges do, and what would come from beyond the first and last pixel is theirs.

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
    places = np.arange(after)
    if align_corners:
        source = places * ((before - 1) / max(after - 1, 1))
    else:
        source = np.maximum((places + 0.5) * (before / after) - 0.5, 0)
    low = np.minimum(source.astype(int), before - 1)
    part = np.minimum(source - low, 1)
    weights = np.zeros((after, before))
    weights[places, low] += 1 - part
    weights[places, np.minimum(low + 1, before - 1)] += part
    return weights
