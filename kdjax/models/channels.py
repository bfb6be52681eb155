"""Selection of channels, their return as zeros, and the contribution of constant channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from kdjax.models.linear import Conv


def select(x: jax.Array, mask: np.ndarray, cost: int) -> jax.Array:
    """`[..., C]` to `[..., channels of the mask]`, before a layer of `cost` operations for each."""
    if mask.all():
        return x
    if len(mask) <= cost:
        return _multiply(x, np.eye(len(mask), dtype=bool)[:, mask])
    return x[..., np.flatnonzero(mask)]


def widen(y: jax.Array, mask: np.ndarray, cost: int) -> jax.Array:
    """`[..., channels of the mask]`, made by `cost` operations each, to `[..., C]` with zeros."""
    if len(mask) <= cost:
        return _multiply(y, np.eye(len(mask), dtype=bool)[mask])
    places = np.where(mask, np.cumsum(mask) - 1, 0)
    return jnp.where(mask, y[..., places], jnp.zeros((), y.dtype))


def _multiply(x: jax.Array, places: np.ndarray) -> jax.Array:
    """Moves channels by a product with a 0/1 matrix, which is exact for finite values.

    XLA gathers single channels slowly on CPUs and TPUs: where the matrix costs less than the
    convolution beside it, it is faster.
    """
    return jnp.dot(x, jnp.asarray(places).astype(x.dtype), precision="highest")


def of_constant(conv: Conv, kernel: jax.Array, size: Sequence[int]) -> jax.Array:
    """The output `[H', W', C]` of a convolution for an image of ones of this size.

    That is one of few vectors for each pixel: the sum of the taps that are not on the padding.

    Args:
      conv: padding, stride and dilation.
      kernel: `[k, k, 1, C]`.
      size: height and width of the image.
    """
    (rows, row), (columns, column) = (
        np.unique(_taps(conv, axis, size[axis]), axis=0, return_inverse=True) for axis in (0, 1)
    )
    sums = jnp.einsum(
        "ya,xb,abc->yxc",
        rows.astype(kernel.dtype),
        columns.astype(kernel.dtype),
        kernel[:, :, 0],
        precision="highest",
    )
    return sums[row.ravel()][:, column.ravel()]


def _taps(conv: Conv, axis: int, size: int) -> np.ndarray:
    """`bool [pixels of the output, taps]`: whether a tap is on the image, along one axis."""
    before, after = conv.padding[axis]
    dilation, stride = conv.kernel_dilation[axis], conv.strides[axis]
    taps = np.arange(conv.kernel_size[axis]) * dilation
    starts = np.arange(-before, size + after - taps[-1], stride)
    places = starts[:, None] + taps
    return (places >= 0) & (places < size)
