"""The gradient of a convolution's kernel as matrix products over a few images at a time.

A product over all pixels of a few images keeps its operands in the cache, and the loop over them
keeps XLA from computing what comes before once more while it transposes whole feature maps.

With stride 1 the taps are shared between the operands: the input laid out once for every column of
the kernel, the output's gradient once for every row, so that one product `[kw I, pixels] x
[pixels, kh O]` is the whole gradient without a tap twice. With larger strides the input is laid out
once for every tap.
"""

from __future__ import annotations

import jax
from jax import lax
from jax import numpy as jnp

from kdjax.models.convolution.window import Window

# Rows of one product, at which it was fastest or nearly so for 16 to 512 channels.
_ROWS = 4096


def kernel_gradient(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    """`[B, H, W, I]`, `[B, H', W', O]` -> `[kh, kw, I, O]`, summed in float32."""
    images = _images(x.shape[0], window)
    shared = window.strides == (1, 1) and window.kernel != (1, 1)
    operands = _shared_taps if shared else _all_taps

    def add(total: jax.Array, some: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        first, second = (_wide(each) for each in operands(*some, window))
        product = lax.dot_general(first, second, (((0,), (0,)), ((), ())))
        return total + product, None

    (height, width), ins, outs = window.kernel, x.shape[3], y.shape[3]
    shape = (width * ins, height * outs) if shared else (height * width * ins, outs)
    if images == x.shape[0]:
        total, _ = add(jnp.zeros(shape, jnp.float32), (x, y))
    else:
        parts = _parts(x, images), _parts(y, images)
        total, _ = lax.scan(add, jnp.zeros(shape, jnp.float32), parts)
    if shared:
        total = total.reshape(width, ins, height, outs).transpose(2, 0, 1, 3)
    return total.reshape(height, width, ins, outs).astype(x.dtype)


def _parts(x: jax.Array, images: int) -> jax.Array:
    """`[B, ...]` -> `[B / images, images, ...]`."""
    return x.reshape(-1, images, *x.shape[1:])


def _images(batch: int, window: Window) -> int:
    """Images of one product: a divisor of the batch."""
    rows = window.output[0] * window.output[1]
    most = max(1, min(batch, _ROWS // rows))
    return next(count for count in range(most, 0, -1) if batch % count == 0)


def _wide(x: jax.Array) -> jax.Array:
    """`[..., C]` -> `[pixels, C]` in float32."""
    return x.reshape(-1, x.shape[-1]).astype(jnp.float32)


def _shared_taps(x: jax.Array, y: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """Column taps of `x`, `[B, H, W', kw I]`, and row taps of `y`, `[B, H, W', kh O]`."""
    (height, width), (rows, columns) = window.kernel, window.padding
    padded = jnp.pad(x, ((0, 0), (0, 0), columns, (0, 0)))
    taps = [padded[:, :, tap : tap + window.output[1]] for tap in range(width)]
    # Row r of the input meets, under row `tap` of the kernel, row r - tap + padding of the output.
    around = tuple(height - 1 - pad for pad in rows)
    padded = jnp.pad(y, ((0, 0), around, (0, 0), (0, 0)))
    starts = range(height - 1, -1, -1)
    back = [padded[:, start : start + window.image[0]] for start in starts]
    return jnp.concatenate(taps, -1), jnp.concatenate(back, -1)


def _all_taps(x: jax.Array, y: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """All taps of `x`, `[B, H', W', kh kw I]`, and `y` as it is."""
    padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    taps = []
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            starts = (0, row, column, 0)
            steps = (1, *window.strides, 1)
            ends = (
                start + (size - 1) * step + 1
                for start, size, step in zip(
                    starts[1:3], window.output, window.strides, strict=True
                )
            )
            limits = (x.shape[0], *ends, x.shape[3])
            taps.append(lax.slice(padded, starts, limits, steps))
    return jnp.concatenate(taps, -1), y
