"""Functions of the compiled library as primitives: the library's on CPUs, XLA's elsewhere.

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


def of_library(
    name: str, by_xla: Callable[..., jax.Array], by_library: Callable[..., jax.Array]
) -> Primitive:
    """A primitive of arrays and static parameters, whose result is that of `by_xla`.

    Args:
      name: of the primitive.
      by_xla: `(*arrays, **parameters) -> array`, by XLA's operations.
      by_library: the same by the library, for CPUs.
    """
    primitive = Primitive(name)

    def abstract(*arrays: Any, **parameters: Any) -> Any:
        shapes = (jax.ShapeDtypeStruct(each.shape, each.dtype) for each in arrays)
        shape = jax.eval_shape(functools.partial(by_xla, **parameters), *shapes)
        return arrays[0].update(shape=shape.shape, dtype=shape.dtype, weak_type=False)

    def for_cpu(context: Any, *operands: Any, **parameters: Any) -> Any:
        exported = context.module_context.lowering_parameters.for_export
        function = by_xla if exported else by_library
        return mlir.lower_fun(function, multiple_results=False)(context, *operands, **parameters)

    def batch(
        arguments: Sequence[jax.Array], axes: Sequence[int | None], **parameters: Any
    ) -> tuple[jax.Array, int]:
        """One after the other: the library uses all cores for each."""
        moved = [
            None if axis is None else jnp.moveaxis(argument, axis, 0)
            for argument, axis in zip(arguments, axes, strict=True)
        ]

        def one(mapped: Sequence[jax.Array | None]) -> jax.Array:
            pairs = zip(mapped, arguments, strict=True)
            return primitive.bind(*(b if a is None else a for a, b in pairs), **parameters)

        return jax.lax.map(one, tuple(moved)), 0

    @functools.cache
    def compiled(**parameters: Any) -> Callable[..., jax.Array]:
        return jax.jit(functools.partial(primitive.bind, **parameters))

    primitive.def_impl(lambda *arrays, **parameters: compiled(**parameters)(*arrays))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(by_xla, multiple_results=False))
    mlir.register_lowering(primitive, for_cpu, platform="cpu")
    batching.primitive_batchers[primitive] = batch
    return primitive


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


_primitive = of_library("kdjax_convolution", _xla, _native)
