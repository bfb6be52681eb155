"""What sums, largest and smallest values over axes or windows make of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from kdjax.compaction.channel_flow import Constant, Flow, Value, dims


def reduce(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    """Sums, largest and smallest values over axes without channels."""
    (value,) = values
    axes = tuple(eqn.params["axes"])
    name = eqn.primitive.name
    labels = []
    for label in value.labels:
        if set(axes) & set(dims(label)):
            flow.block(label, f"'{name}' over its channels")
        else:
            labels.append(label.squeeze(axes))
    number = math.prod(value.shape[axis] for axis in axes)

    def compute(constant: Constant) -> Constant:
        rank = len(value.shape)
        values, known = (x if x.ndim else x.reshape((1,) * rank) for x in constant)
        uniform = all(values.shape[axis] == known.shape[axis] == 1 for axis in axes)
        if not uniform:
            # Zeros may have been computed one by one.
            values, known = jnp.zeros((), values.dtype), (known & (values == 0)).all(axes)
            return Constant(jnp.broadcast_to(values, known.shape), known)
        values = values * number if name == "reduce_sum" else values
        return Constant(values.squeeze(axes), known.squeeze(axes))

    varies = tuple(v for axis, v in enumerate(value.varies) if axis not in axes)
    return Value(
        eqn.outvars[0].aval.shape,
        varies,
        tuple(labels),
        flow.node(compute, value.node),
        value.of_input,
        value.paths,
    )


def pool(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    """Sums and largest values of windows in space."""
    value, params = values[0], eqn.params
    window, padding = params["window_dimensions"], params["padding"]
    pooled = tuple(axis for axis, size in enumerate(window) if size > 1)
    spread = any(size > 1 for size in (*params["base_dilation"], *params["window_dilation"]))
    strided = any(
        stride > 1 and axis not in pooled for axis, stride in enumerate(params["window_strides"])
    )
    padded = any(any(each) for each in padding)
    labels = []
    for label in value.labels:
        if strided or any(axis in pooled or any(padding[axis]) for axis in dims(label)):
            flow.block(label, f"'{eqn.primitive.name}' over its channels")
        else:
            labels.append(label)
    largest = eqn.primitive.name == "reduce_window_max"
    # Padding is never the largest; every window has a value beside it.
    filled = all(max(each) < size for each, size in zip(padding, window, strict=True) if any(each))

    def compute(constant: Constant) -> Constant:
        values, known = constant
        uniform = all(x.ndim == 0 or all(x.shape[axis] == 1 for axis in pooled) for x in constant)
        if not uniform or spread or (largest and not filled):
            return Constant(jnp.zeros((), values.dtype), jnp.zeros((), bool))
        if largest:
            return constant
        known = known & (values == 0) if padded else known
        return Constant(values * math.prod(window), known)

    return Value(
        eqn.outvars[0].aval.shape,
        value.varies,
        tuple(labels),
        flow.node(compute, value.node),
        value.of_input,
        value.paths,
    )
