"""Convolutions and matrix products with a kernel: they consume channels and make others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kdjax.compaction.channel_flow import Chain, Constant, Contraction, Flow, Value, dims


class Zero(NamedTuple):
    """Name of the array that says which filters of a kernel are pruned, `bool [C]`."""

    kernel: str


def convolution(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value | None:
    """A convolution; None where it is none of a feature map with a kernel."""
    x, kernel = values
    params = eqn.params
    if not x.of_input or kernel.leaf is None or params["batch_group_count"] > 1:
        return None
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    channel_axis, out_axis = numbers.lhs_spec[1], numbers.out_spec[1]
    kernel_in, kernel_out = numbers.rhs_spec[1], numbers.rhs_spec[0]
    outputs, inputs = _channels(kernel, kernel_out), _channels(kernel, kernel_in)
    label = _label(flow, x, (channel_axis,), "an axis of a convolution without channels")
    depthwise = groups > 1 and kernel.shape[kernel_in] == 1
    read = None if label is None else label.ravel()
    if depthwise and read is not None:
        repeated = np.repeat(read, kernel.shape[kernel_out] // groups)
        flow.tie(outputs, repeated, "a depthwise convolution of channels that stay")
    elif groups > 1:
        for channels in (outputs, inputs, *([] if read is None else [read])):
            flow.block(channels, f"a convolution of {groups} groups")
    elif read is not None:
        flow.tie(inputs, read, "read together with channels that stay")
    else:
        flow.block(inputs, "reads the network's inputs")
    padded = any(any(each) for each in params["padding"]) or any(
        size > 1 for size in params["lhs_dilation"]
    )
    shape = eqn.outvars[0].aval.shape
    contraction = Contraction(
        kernel.leaf, outputs, None if depthwise else read, inputs, x.node, channel_axis, padded,
        depthwise,
    )  # fmt: skip
    sums = None
    if depthwise:
        spatial = numbers.rhs_spec[1:]
        repeats = kernel.shape[kernel_out] // groups

        def sums(constant: Constant, weights: Constant) -> Constant:
            one = per_channel(constant, channel_axis, groups)
            values, known = jnp.repeat(one.values, repeats), jnp.repeat(one.known, repeats)
            known = known & (values == 0) if padded else known
            return Constant(values * weights.values.sum(spatial), known)

    return _output(flow, contraction, shape, out_axis, (x, kernel), sums)


def product(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value | None:
    """A matrix product; None where it is none of a value with a kernel."""
    (left, right), (left_batch, _) = eqn.params["dimension_numbers"]
    sides = ((values[0], tuple(left)), (values[1], tuple(right)))
    if left_batch or len(left) != 1:
        return None
    if values[0].leaf is None:
        (x, (axis,)), (kernel, (kernel_in,)) = sides
    else:
        (kernel, (kernel_in,)), (x, (axis,)) = sides
    if kernel.leaf is None or len(kernel.shape) != 2 or not x.of_input:
        return None
    kernel_out = 1 - kernel_in
    outputs, inputs = _channels(kernel, kernel_out), _channels(kernel, kernel_in)
    label = _label(flow, x, (axis,), "an axis of a matrix product without channels")
    read = None if label is None else label.ravel()
    if read is not None:
        flow.tie(inputs, read, "read together with channels that stay")
    else:
        flow.block(inputs, "reads the network's inputs")
    shape = eqn.outvars[0].aval.shape
    out_axis = len(shape) - 1 if x is values[0] else 0
    contraction = Contraction(kernel.leaf, outputs, read, inputs, x.node, axis, False)
    return _output(flow, contraction, shape, out_axis, (x, kernel), None)


def _channels(kernel: Value, axis: int) -> np.ndarray:
    """The channels of a kernel along an axis."""
    for label in kernel.labels:
        if dims(label) == (axis,):
            return label.ravel()
    return np.zeros(0, np.int64)


def _label(flow: Flow, x: Value, axes: tuple[int, ...], reason: str) -> np.ndarray | None:
    """The channels along the axis that is contracted; others must stay."""
    label = None
    for each in x.labels:
        if dims(each) == axes:
            label = each
        else:
            flow.block(each, reason)
    return label


def _output(
    flow: Flow,
    contraction: Contraction,
    shape: tuple[int, ...],
    out_axis: int,
    operands: tuple[Value, Value],
    sums: Any,
) -> Value:
    """The value that a contraction makes: zero where the filter is."""
    form = [-1 if axis == out_axis else 1 for axis in range(len(shape))]
    zero = flow.given(Zero(contraction.kernel))

    def compute(zero: Constant, *others: Constant) -> Constant:
        pruned = zero.values.astype(bool)
        values, known = jnp.zeros(pruned.shape), pruned
        if others:
            constant = sums(*others)
            values = jnp.where(pruned, 0, constant.values)
            known = pruned | constant.known
        return Constant(values.reshape(form), known.reshape(form))

    x, kernel = operands
    others = (x.node, kernel.node) if sums else ()
    one = flow.node(lambda: Constant(jnp.ones(1), jnp.ones(1, bool)))
    labels = (contraction.outputs.reshape(form),) if contraction.outputs.size else ()
    result = Value(
        shape, tuple(size > 1 for size in shape), labels, flow.node(compute, zero, *others), True
    )
    result.chain = Chain(contraction, one, (result,))
    flow.contractions.append(contraction)
    return result


def per_channel(constant: Constant, axis: int, size: int) -> Constant:
    """A constant as one value per channel, `[size]`; zeros may have been computed one by one."""
    values, known = constant
    if values.ndim == known.ndim == 0:
        return Constant(jnp.broadcast_to(values, size), jnp.broadcast_to(known, size))
    values, known = (x.reshape((1,) * max(values.ndim, known.ndim)) if not x.ndim else x
                     for x in constant)  # fmt: skip
    rest = tuple(other for other in range(values.ndim) if other != axis)
    if math.prod(values.shape[a] * known.shape[a] for a in rest) > 1:
        known = (known & (values == 0)).all(rest)
        values = jnp.zeros(known.shape, values.dtype)
    return Constant(*(jnp.broadcast_to(x.ravel(), size) for x in (values, known)))
