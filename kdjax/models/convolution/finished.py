"""A convolution together with what follows it in evaluation, by the compiled library.

A factor and a summand for each channel (BatchNorm), another feature map (a residual sum) and ReLU
are applied while the convolution's sums are in the cache: no pass over memory of their own. Filters
may be fewer than the channels, and may read some of the input's only, as in a compact network.
"""

from __future__ import annotations

import functools
from typing import Any

import jax

from kdjax.models.convolution import native, primitive
from kdjax.models.convolution.convolve import convolve
from kdjax.models.convolution.finish import Finish, by_xla
from kdjax.models.convolution.window import LAYOUT, Window


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def finished_convolution(
    x: jax.Array,
    w: jax.Array,
    factors: jax.Array,
    offsets: jax.Array,
    summand: jax.Array,
    finish: Finish,
) -> jax.Array:
    """As `finish.by_xla`, in float32; its derivatives are of any order, in reverse mode."""
    return _primitive.bind(x, w, factors, offsets, summand, finish=finish)


def _saved(*arguments: Any) -> tuple[jax.Array, Any]:
    *arrays, finish = arguments

    def convolution(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
        return convolve(x, w, window.strides, window.padding, dimension_numbers=LAYOUT)

    return jax.vjp(functools.partial(by_xla, finish=finish, convolution=convolution), *arrays)


def _gradients(finish: Finish, pullback: Any, y: jax.Array) -> tuple[jax.Array, ...]:
    del finish
    return pullback(y)


finished_convolution.defvjp(_saved, _gradients)


def _by_library(*arrays: jax.Array, finish: Finish) -> jax.Array:
    return native.finished(*arrays, finish=finish)


_primitive = primitive.of_library("kdjax_finished_convolution", by_xla, _by_library)
