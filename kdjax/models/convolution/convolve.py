"""`convolve` and its derivatives of any order.

The three bilinear maps of `window` are the derivatives of one another, so each is given the other
two as its gradients, and gradients of gradients take the same fast paths. Under `jax.vmap` they are
XLA's own (which makes grouped convolutions of them).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from kdjax.models.convolution import choice, onednn, window as windows
from kdjax.models.convolution.kernel_gradient import kernel_gradient as products
from kdjax.models.convolution.window import Window


def convolve(
    x: jax.Array, w: jax.Array, window_strides: Any, padding: Any, **others: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, by what is fastest on this machine.

    `flax.linen.Conv` takes it as `conv_general_dilated`. Only reverse-mode derivatives are defined
    where it is not that function itself.
    """
    window = windows.of_convolution(x, w, window_strides, padding, **others)
    if choice.replaced(x, w, window):
        return _convolution(x, w, window)
    return lax.conv_general_dilated(x, w, window_strides, padding, **others)


def _unbatched(fast: Callable, slow: Callable) -> Callable:
    """`fast(a, b)`; `jax.vmap` of it is that of `slow`."""
    function = jax.custom_batching.custom_vmap(fast)

    @function.def_vmap
    def batched(size, in_batched, a, b):
        axes = tuple(0 if each else None for each in in_batched)
        return jax.vmap(slow, axes, axis_size=size)(a, b), True

    return function


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    slow = functools.partial(windows.convolution, window=window)
    if not choice.by_onednn(x.dtype.name, window):
        return slow(x, w)
    return _unbatched(functools.partial(onednn.convolution, window=window), slow)(x, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _input_gradient(y: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    slow = functools.partial(windows.input_gradient, window=window)
    if not choice.by_onednn(y.dtype.name, window):
        return slow(y, w)
    return _unbatched(functools.partial(onednn.input_gradient, window=window), slow)(y, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    slow = functools.partial(windows.kernel_gradient, window=window)
    if not choice.by_products(x, y, window):
        return slow(x, y)
    return _unbatched(functools.partial(products, window=window), slow)(x, y)


def _save(function: Callable) -> Callable:
    """The forward pass of a bilinear map: its derivatives need both arguments."""

    def forward(a, b, window):
        return function(a, b, window), (a, b)

    return forward


def _convolution_gradients(window, saved, y):
    x, w = saved
    return _input_gradient(y, w, window), _kernel_gradient(x, y, window)


def _input_gradient_gradients(window, saved, x):
    y, w = saved
    return _convolution(x, w, window), _kernel_gradient(x, y, window)


def _kernel_gradient_gradients(window, saved, w):
    x, y = saved
    return _input_gradient(y, w, window), _convolution(x, w, window)


_convolution.defvjp(_save(_convolution), _convolution_gradients)
_input_gradient.defvjp(_save(_input_gradient), _input_gradient_gradients)
_kernel_gradient.defvjp(_save(_kernel_gradient), _kernel_gradient_gradients)
