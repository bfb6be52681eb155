"""Sums over all pixels per channel, by the library of `native` where that is faster.

XLA for CPU writes what it sums (squares, products) to memory before it sums it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from kdjax.models.convolution import native

# Values from which on the library is worth a custom call.
SMALLEST = 1 << 16
_Pair = tuple[jax.Array, jax.Array]


def served(x: jax.Array) -> bool:
    """Whether the library sums `x` `[..., C]`."""
    if jax.default_backend() != "cpu" or x.dtype != jnp.float32:
        return False
    # A symbolic batch has no size.
    sizes = all(isinstance(size, int) for size in x.shape)
    return sizes and x.size >= SMALLEST and native.available()


@jax.custom_vjp
def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean `[C]` and biased variance `[C]` of `x` `[..., C]`."""
    return tuple(_moments.bind(x))


def _moments_and_saved(x: jax.Array) -> tuple[_Pair, _Pair]:
    mean, var = moments(x)
    return (mean, var), (x, mean)


def _moments_gradient(saved: _Pair, gradients: _Pair) -> tuple[jax.Array]:
    x, mean = saved
    of_mean, of_var = (each / (x.size // x.shape[-1]) for each in gradients)
    return (of_mean + 2 * of_var * (x - mean),)


moments.defvjp(_moments_and_saved, _moments_gradient)


@jax.custom_vjp
def scale_and_shift(x: jax.Array, multiplier: jax.Array, offset: jax.Array) -> jax.Array:
    """`x * multiplier + offset`, `[..., C]` times `[C]` plus `[C]`."""
    return x * multiplier + offset


def _scaled_and_saved(
    x: jax.Array, multiplier: jax.Array, offset: jax.Array
) -> tuple[jax.Array, _Pair]:
    return scale_and_shift(x, multiplier, offset), (x, multiplier)


def _scaled_gradient(saved: _Pair, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, multiplier = saved
    shift, scale = _products.bind(x, y)
    return y * multiplier, scale, shift


scale_and_shift.defvjp(_scaled_and_saved, _scaled_gradient)


def _xla_moments(x: jax.Array) -> jax.Array:
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return jnp.stack([mean, jnp.square(x - mean).mean(axes)])


def _xla_products(x: jax.Array, y: jax.Array) -> jax.Array:
    axes = tuple(range(x.ndim - 1))
    return jnp.stack([y.sum(axes), (y * x).sum(axes)])


def _primitive(name: str, by_xla: Callable[..., jax.Array]) -> Primitive:
    primitive = Primitive(f"kdjax_{name}")

    def by_library(*arrays: jax.Array) -> jax.Array:
        return native.sums(name, *arrays)

    def for_cpu(context: Any, *operands: Any) -> Any:
        exported = context.module_context.lowering_parameters.for_export
        function = by_xla if exported else by_library
        return mlir.lower_fun(function, multiple_results=False)(context, *operands)

    def batch(arrays: Sequence[jax.Array], axes: Sequence[int | None]) -> tuple[jax.Array, int]:
        size = next(
            array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None
        )
        whole = [
            jnp.broadcast_to(array, (size, *array.shape))
            if axis is None
            else jnp.moveaxis(array, axis, 0)
            for array, axis in zip(arrays, axes, strict=True)
        ]
        return jax.lax.map(lambda each: primitive.bind(*each), tuple(whole)), 0

    primitive.def_impl(lambda *arrays: jax.jit(primitive.bind)(*arrays))
    primitive.def_abstract_eval(lambda x, *_: x.update(shape=(2, x.shape[-1]), weak_type=False))
    mlir.register_lowering(primitive, mlir.lower_fun(by_xla, multiple_results=False))
    mlir.register_lowering(primitive, for_cpu, platform="cpu")
    batching.primitive_batchers[primitive] = batch
    return primitive


_moments = _primitive("moments", _xla_moments)
_products = _primitive("products", _xla_products)
