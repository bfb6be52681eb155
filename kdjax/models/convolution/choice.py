"""Which implementation a shape gets: a small table of what was measured.

Milliseconds on one core of a Zen 3 processor (AVX2), float32, XLA's own beside the other:

    images x size x channels    convolution   input gradient   kernel gradient (XLA, products)
    128 x 32 x 16 -> 16         12.8,  7.9     13.1,  7.8       18.2,  17.2
    128 x 16 x 32 -> 32          8.8,  7.7      8.8,  7.7       12.0,  10.5
    128 x 8 x 64 -> 64           9.1,  8.5     10.2,  9.0       11.7,   9.5
    64 x 32 x 64 -> 64          60.7, 52.7     61.9, 51.8      100,    86
    64 x 8 x 256 -> 256         62.8, 48.5     62.3, 46.9       67,    72
    128 x 32 x 3 -> 16          11.3,  2.1                       5.9,   6.1
    128 x 32 x 20 -> 20         29.6, 20.4     27.9, 15.6       28.9,  21.8
    128 x 32 x 16 -> 32, by 2    6.3,  7.3     16.8
    64 x 16 x 64 -> 256, 1 x 1   7.1,  8.1      7.6,  8.4       12.6,   8.0

Alone, the kernel gradient gains little; inside a step it also saves the transposed copies of feature
maps that XLA's makes, four tenths of a ResNet's step. What is small is left to XLA, since every
product is a loop to compile.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax

from kdjax.models.convolution import onednn
from kdjax.models.convolution.window import Window

# Multiply-adds of a convolution from which on a choice is worth its compilation.
SMALLEST = 1 << 22
_DTYPES = ("float32", "bfloat16")

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Functions traced inside keep to `lax.conv_general_dilated`, for other platforms and readers."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def replaced(x: jax.Array, w: jax.Array, window: Window | None) -> bool:
    """Whether a convolution is any other than XLA's."""
    if _plain.get() or window is None or jax.default_backend() != "cpu":
        return False
    if x.dtype != w.dtype or x.dtype.name not in _DTYPES:
        return False
    return x.shape[0] * math.prod(window.output) * w.size >= SMALLEST


def by_onednn(dtype: str, window: Window) -> bool:
    """Whether the convolution goes to oneDNN."""
    return window.kernel != (1, 1) and window.strides == (1, 1) and onednn.works(dtype)


def by_products(x: jax.Array, y: jax.Array, window: Window) -> bool:
    """Whether the kernel gradient is computed as matrix products."""
    return min(x.shape[3], y.shape[3]) >= 8 and max(window.kernel) <= 3
