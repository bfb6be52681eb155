"""The maps of a convolution as one primitive: the compiled library's on CPUs, XLA's elsewhere.

What a program is lowered for decides, so what is exported holds XLA's operations alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from kdjax.models.convolution import native
from kdjax.models.convolution import window as windows
from kdjax.models.convolution.window import Window

_primitive = Primitive("kdjax_convolution")


def convolution(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """As `window.convolution`."""
    return _primitive.bind(x, w, name="convolution", window=window)


def input_gradient(y: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """As `window.input_gradient`."""
    return _primitive.bind(y, w, name="input_gradient", window=window)


def kernel_gradient(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    """As `window.kernel_gradient`."""
    return _primitive.bind(x, y, name="kernel_gradient", window=window)


def _xla(first: jax.Array, second: jax.Array, *, name: str, window: Window) -> jax.Array:
    return getattr(windows, name)(first, second, window)


def _native(first: jax.Array, second: jax.Array, *, name: str, window: Window) -> jax.Array:
    return native.call(name, first, second, window)


def _abstract(first: Any, second: Any, **parameters: Any) -> Any:
    shape = jax.eval_shape(
        functools.partial(_xla, **parameters),
        *(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (first, second)),
    )
    return first.update(shape=shape.shape, dtype=shape.dtype, weak_type=False)


def _lower_for_cpu(context: Any, *operands: Any, **parameters: Any) -> Any:
    exported = context.module_context.lowering_parameters.for_export
    function = _xla if exported else _native
    return mlir.lower_fun(function, multiple_results=False)(context, *operands, **parameters)


def _batch(
    arguments: Sequence[jax.Array], axes: Sequence[int | None], **parameters: Any
) -> tuple[jax.Array, int]:
    """One after the other: the library uses all cores for each."""
    moved = [
        None if axis is None else jnp.moveaxis(argument, axis, 0)
        for argument, axis in zip(arguments, axes, strict=True)
    ]

    def one(mapped: Sequence[jax.Array | None]) -> jax.Array:
        pairs = zip(mapped, arguments, strict=True)
        return _primitive.bind(*(b if a is None else a for a, b in pairs), **parameters)

    return jax.lax.map(one, tuple(moved)), 0


@functools.cache
def _compiled(**parameters: Any) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(_primitive.bind, **parameters))


_primitive.def_impl(lambda *both, **parameters: _compiled(**parameters)(*both))
_primitive.def_abstract_eval(_abstract)
mlir.register_lowering(_primitive, mlir.lower_fun(_xla, multiple_results=False))
mlir.register_lowering(_primitive, _lower_for_cpu, platform="cpu")
batching.primitive_batchers[_primitive] = _batch
