"""`convolve`: a convolution whose kernel gradient is fast on CPUs.

XLA for CPU computes a kernel gradient from transposed copies of the feature maps, and computes the
element-wise operations before them once more for each copy: four tenths of a ResNet-32's step.
Matrix products over a few images at a time need no copies. docs/performance.md has the times.

oneDNN, which jaxlib contains, is not used: in float32 it gained nothing in a whole step on a
processor with AVX2, it ends the process where the processor lacks instructions for bfloat16, and
programs with its calls cannot be written to JAX's compilation cache.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax import lax

from kdjax.models.convolution import window as windows
from kdjax.models.convolution.kernel_gradient import kernel_gradient as products
from kdjax.models.convolution.window import Window

# Values of the larger feature map from which on products, a loop to compile each, are worth it.
SMALLEST = 1 << 18
# Taps of a kernel's side. The operands are copied once for each.
_LARGEST_KERNEL = 3
_DTYPES = ("float32", "bfloat16")


def convolve(
    x: jax.Array, w: jax.Array, window_strides: Any, padding: Any, **others: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, with the kernel gradient that is fastest on this machine.

    `flax.linen.Conv` takes it as `conv_general_dilated`. Where the gradient is replaced, only
    reverse-mode derivatives are defined, of any order.
    """
    window = windows.of_convolution(x, w, window_strides, padding, **others)
    if window is not None and _is_replaced(x, w, window):
        return _convolution(x, w, window)
    return lax.conv_general_dilated(x, w, window_strides, padding, **others)


def _is_replaced(x: jax.Array, w: jax.Array, window: Window) -> bool:
    """Whether the kernel gradient is computed as products."""
    if jax.default_backend() != "cpu" or x.dtype != w.dtype or x.dtype.name not in _DTYPES:
        return False
    outputs = x.shape[0] * math.prod(window.output) * w.shape[3]
    return max(window.kernel) <= _LARGEST_KERNEL and max(x.size, outputs) >= SMALLEST


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    return windows.convolution(x, w, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    return products(x, y, window)


def _convolution_and_saved(x, w, window):
    return _convolution(x, w, window), (x, w)


def _convolution_gradients(window, saved, y):
    x, w = saved
    return windows.input_gradient(y, w, window), _kernel_gradient(x, y, window)


def _kernel_gradient_and_saved(x, y, window):
    return _kernel_gradient(x, y, window), (x, y)


def _kernel_gradient_gradients(window, saved, w):
    x, y = saved
    return windows.input_gradient(y, w, window), _convolution(x, w, window)


_convolution.defvjp(_convolution_and_saved, _convolution_gradients)
_kernel_gradient.defvjp(_kernel_gradient_and_saved, _kernel_gradient_gradients)
