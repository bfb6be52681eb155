"""`convolve`: a convolution with its gradients, fast on CPUs.

A library that is compiled on the machine (`native`) computes all three maps of large convolutions
in float32. Where it cannot be made, and in bfloat16, kernel gradients are matrix products over a
few images at a time (`kernel_gradient`): XLA computes them from transposed copies
of the feature maps, and computes the element-wise operations before them once more for each copy.
docs/performance.md has the times.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from kdjax.models.convolution import kernel_gradient as products
from kdjax.models.convolution import native, primitive
from kdjax.models.convolution import window as windows
from kdjax.models.convolution.window import Window

# Values of the larger feature map from which on products, a loop to compile each, are worth it.
SMALLEST = 1 << 18
# Multiply-adds from which on the library is worth a custom call.
SMALLEST_NATIVE = 1 << 22
# Taps of a kernel's side. For products, the operands are copied once for each.
_LARGEST_KERNEL = {"native": 7, "products": 3}
_Pair = tuple[jax.Array, jax.Array]
_DTYPES = {"native": ("float32",), "products": ("float32", "bfloat16")}


def convolve(
    x: jax.Array, w: jax.Array, window_strides: Any, padding: Any, **others: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, in the way that is fastest on this machine.

    `flax.linen.Conv` takes it as `conv_general_dilated`. Where XLA's is replaced, only reverse-mode
    derivatives are defined, of any order.
    """
    window = windows.of_convolution(x, w, window_strides, padding, **others)
    way = None if window is None else _way(x, w, window)
    if way is None:
        return lax.conv_general_dilated(x, w, window_strides, padding, **others)
    return _convolution(x, w, window, way)


def library_window(
    x: Any, w: Any, window_strides: Any, padding: Any, **others: Any
) -> Window | None:
    """The window of a convolution that the library computes; None for any other one.

    The arguments are those of `convolve`; arrays or their shapes.
    """
    window = windows.of_convolution(x, w, window_strides, padding, **others)
    return None if window is None or _way(x, w, window) != "native" else window


def _way(x: Any, w: Any, window: Window) -> str | None:
    """How the convolution and its gradients are computed: 'native', 'products', or None: by XLA."""
    if jax.default_backend() != "cpu" or x.dtype != w.dtype:
        return None
    outputs = x.shape[0] * math.prod(window.output) * w.shape[3]
    large = {
        "native": outputs * math.prod(w.shape[:3]) >= SMALLEST_NATIVE,
        "products": max(x.size, outputs) >= SMALLEST,
    }
    for way in ("native", "products"):
        fits = x.dtype.name in _DTYPES[way] and max(window.kernel) <= _LARGEST_KERNEL[way]
        if fits and large[way] and (way == "products" or native.available()):
            return way
    return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: jax.Array, w: jax.Array, window: Window, way: str) -> jax.Array:
    return (primitive if way == "native" else windows).convolution(x, w, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(y: jax.Array, w: jax.Array, window: Window, way: str) -> jax.Array:
    return (primitive if way == "native" else windows).input_gradient(y, w, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x: jax.Array, y: jax.Array, window: Window, way: str) -> jax.Array:
    return (primitive if way == "native" else products).kernel_gradient(x, y, window)


def _with_operands(
    function: Callable[[jax.Array, jax.Array, Window, str], jax.Array],
) -> Callable[[jax.Array, jax.Array, Window, str], tuple[jax.Array, _Pair]]:
    """What `defvjp` takes as the forward pass of a bilinear function."""
    return lambda first, second, window, way: (
        function(first, second, window, way),
        (first, second),
    )


def _convolution_gradients(window: Window, way: str, operands: _Pair, y: jax.Array) -> _Pair:
    x, w = operands
    return _input_gradient(y, w, window, way), _kernel_gradient(x, y, window, way)


def _input_gradient_gradients(window: Window, way: str, operands: _Pair, x: jax.Array) -> _Pair:
    y, w = operands
    return _convolution(x, w, window, way), _kernel_gradient(x, y, window, way)


def _kernel_gradient_gradients(window: Window, way: str, operands: _Pair, w: jax.Array) -> _Pair:
    x, y = operands
    return _input_gradient(y, w, window, way), _convolution(x, w, window, way)


_convolution.defvjp(_with_operands(_convolution), _convolution_gradients)
_input_gradient.defvjp(_with_operands(_input_gradient), _input_gradient_gradients)
_kernel_gradient.defvjp(_with_operands(_kernel_gradient), _kernel_gradient_gradients)
