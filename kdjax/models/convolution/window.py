"""The window of a dense two-dimensional convolution, and the three bilinear maps it defines.

With images `x` `[B, H, W, I]`, a kernel `w` `[kh, kw, I, O]` and outputs `y` `[B, H', W', O]`, the
scalar `<y, convolve(x, w)>` is linear in each of the three; its derivatives are `convolve(x, w)`,
the input gradient (of y and w) and the kernel gradient (of x and y).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


class Window(NamedTuple):
    """Sizes of image and kernel, strides, and padding (before, after); all for rows, columns."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the outputs."""
        sizes = zip(self.image, self.kernel, self.strides, self.padding, strict=True)
        height, width = (
            (size + sum(pad) - kernel) // step + 1 for size, kernel, step, pad in sizes
        )
        return height, width


def of_convolution(
    x: Any, w: Any, strides: Sequence[int], padding: Any, **others: Any
) -> Window | None:
    """The window of these arguments of `lax.conv_general_dilated`; None for any other kind.

    Known are images `[B, H, W, I]` and kernels `[kh, kw, I, O]` of fixed sizes, without dilation
    and groups, with less padding than the kernel has taps.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        return None
    if not all(isinstance(size, int) for size in x.shape):
        return None  # a symbolic batch
    numbers = others.pop("dimension_numbers", None)
    if lax.conv_dimension_numbers(x.shape, w.shape, numbers) != lax.conv_dimension_numbers(
        x.shape, w.shape, LAYOUT
    ):
        return None
    dilations = (others.pop("lhs_dilation", None), others.pop("rhs_dilation", None))
    if any(set(dilation or (1,)) != {1} for dilation in dilations):
        return None
    if others.pop("feature_group_count", 1) != 1 or any(v is not None for v in others.values()):
        return None
    kernel = tuple(w.shape[:2])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel, strides, padding)
    padding = tuple(tuple(pad) for pad in padding)
    sizes = zip(kernel, padding, strict=True)
    if not all(0 <= side < size for size, pad in sizes for side in pad):
        return None
    window = Window(tuple(x.shape[1:3]), kernel, (strides[0], strides[1]), padding)
    return window if min(window.output) > 0 else None


def convolution(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """`[B, H, W, I]`, `[kh, kw, I, O]` -> `[B, H', W', O]`, as XLA does it."""
    return lax.conv_general_dilated(x, w, window.strides, window.padding, dimension_numbers=LAYOUT)


def input_gradient(y: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """`[B, H', W', O]`, `[kh, kw, I, O]` -> `[B, H, W, I]`, as XLA does it."""
    x = jax.ShapeDtypeStruct((y.shape[0], *window.image, w.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: convolution(x, w, window), x)(y)[0]


def kernel_gradient(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    """`[B, H, W, I]`, `[B, H', W', O]` -> `[kh, kw, I, O]`, as XLA does it."""
    w = jax.ShapeDtypeStruct((*window.kernel, x.shape[3], y.shape[3]), x.dtype)
    return jax.linear_transpose(lambda w: convolution(x, w, window), w)(y)[0]
