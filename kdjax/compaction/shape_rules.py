"""What operations that move, reduce and pool entries make of values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.compaction.arithmetic_rules import carry
from kdjax.compaction.channel_flow import FIXED, Constant, Flow, Value, dims


def moved(
    flow: Flow, value: Value, shape: tuple[int, ...], move: Callable[[Any], Any], leaf: bool = False
) -> Value:
    """An operation that only moves entries.

    Args:
      flow: the record.
      value: the operand.
      shape: of the result.
      move: what becomes of an array whose axes have their full length or 1.
      leaf: whether a parameter stays one: its axes are kept, in another order.
    """

    def compute(constant: Constant) -> Constant:
        rank = len(value.shape)
        arrays = (array if array.ndim == rank else array.reshape((1,) * rank) for array in constant)
        return Constant(*(move(array) for array in arrays))

    labels: list[np.ndarray] = []
    lost: list[np.ndarray] = []
    for label in value.labels:
        after = _compressed(move(label))
        same = [other for other in labels if set(dims(other)) & set(dims(after))]
        if same or not dims(after):
            lost += [label, *same] if same else []
        else:
            labels.append(after)
    for label in lost:
        flow.block(label, "two axes of channels become one")
    labels = [label for label in labels if not any(label is other for other in lost)]
    varies = _compressed(move(_grid(value)))
    result = Value(
        shape,
        tuple(bool(size > 1) for size in varies.shape),
        tuple(labels),
        flow.node(compute, value.node),
        value.of_input,
    )
    carry(value, result)
    result.leaf = value.leaf if leaf else None
    return result


def _grid(value: Value) -> np.ndarray:
    """An array that varies along the axes along which a value does."""
    sizes = [size if varies else 1 for size, varies in zip(value.shape, value.varies, strict=True)]
    return np.arange(math.prod(sizes)).reshape(sizes)


def _compressed(array: np.ndarray) -> np.ndarray:
    """The array with axes of length 1 where its entries are equal."""
    for axis in range(array.ndim):
        first = array.take([0], axis) if array.shape[axis] else array
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array


def reshape(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    (value,) = values
    shape = eqn.outvars[0].aval.shape
    groups = _factors(value.shape, shape)
    # The sizes of the parts of a split axis may be numbers in the program.
    split = {axis for old, new in groups for axis in old if sum(shape[a] > 1 for a in new) > 1}
    value = _without(flow, value, split, "'reshape' splits its channels")

    def move(array: Any) -> Any:
        before, after = [], []
        for old, new in groups:
            whole = any(array.shape[axis] > 1 for axis in old)
            before += [value.shape[axis] if whole else 1 for axis in old]
            after += [shape[axis] if whole else 1 for axis in new]
        numpy = np if isinstance(array, np.ndarray) else jnp
        return numpy.broadcast_to(array, before).reshape(after)

    return moved(flow, value, shape, move)


def _without(flow: Flow, value: Value, axes: set[int], reason: str) -> Value:
    """The value, whose channels along these axes must stay: the program counts on their number."""
    lost = [label for label in value.labels if axes & set(dims(label))]
    for label in lost:
        flow.block(label, reason)
    kept = tuple(label for label in value.labels if not any(label is each for each in lost))
    return dataclasses.replace(value, labels=kept)


def _factors(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of consecutive axes that a reshape maps to each other."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        sizes = [1, 1]
        while not (left or right) or sizes[0] != sizes[1]:
            if i < len(old) and (sizes[0] <= sizes[1] or j == len(new)):
                left.append(i)
                sizes[0] *= old[i]
                i += 1
            else:
                right.append(j)
                sizes[1] *= new[j]
                j += 1
        groups.append((left, right))
    return groups


def broadcast_in_dim(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    value, shape = values[0], eqn.params["shape"]
    positions = eqn.params["broadcast_dimensions"]

    def move(array: Any) -> Any:
        sizes = [1] * len(shape)
        for axis, position in enumerate(positions):
            sizes[position] = array.shape[axis]
        return array.reshape(sizes)

    return moved(flow, value, shape, move)


def transpose(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    order = eqn.params["permutation"]
    return moved(
        flow, values[0], eqn.outvars[0].aval.shape, lambda array: array.transpose(order), leaf=True
    )


def squeeze(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    axes = eqn.params["dimensions"]
    return moved(
        flow, values[0], eqn.outvars[0].aval.shape, lambda array: array.squeeze(tuple(axes))
    )


def indexed(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    """Slices and reversals."""
    value = values[0]
    if eqn.primitive.name == "rev":
        slices = [slice(None, None, -1) if axis in eqn.params["dimensions"] else slice(None)
                  for axis in range(len(value.shape))]  # fmt: skip
    else:
        strides = eqn.params["strides"] or (1,) * len(value.shape)
        bounds = zip(eqn.params["start_indices"], eqn.params["limit_indices"], strides, strict=True)
        slices = [slice(*each) for each in bounds]
        shorter = {
            axis for axis, size in enumerate(value.shape) if size != eqn.outvars[0].aval.shape[axis]
        }
        value = _without(flow, value, shorter, "'slice' of its channels")

    def move(array: Any) -> Any:
        whole = zip(array.shape, slices, strict=True)
        return array[tuple(each if size > 1 else slice(None) for size, each in whole)]

    result = moved(flow, value, eqn.outvars[0].aval.shape, move)
    result.term = None
    return result


def concatenate(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    axis, shape = eqn.params["dimension"], eqn.outvars[0].aval.shape
    along = [label for value in values for label in value.labels if axis in dims(label)]
    others = [label for value in values for label in value.labels if axis not in dims(label)]
    whole = [label for label in along if dims(label) != (axis,)]
    for label in (*others, *whole):
        flow.block(label, "concatenated along another axis")
    sizes = [value.shape[axis] for value in values]
    form = [-1 if a == axis else 1 for a in range(len(shape))]
    pieces = []
    for value, size in zip(values, sizes, strict=True):
        labels = [label for label in value.labels if dims(label) == (axis,)]
        pieces.append(labels[0] if labels else np.full(size, FIXED).reshape(form))
    label = np.concatenate(pieces, axis)

    def compute(*constants: Constant) -> Constant:
        def joined(arrays: list[jax.Array]) -> jax.Array:
            wide = [jnp.broadcast_to(x, (1,) * len(shape)) if x.ndim == 0 else x for x in arrays]
            rest = np.broadcast_shapes(*((*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in wide))
            full = [
                jnp.broadcast_to(x, (*rest[:axis], size, *rest[axis + 1 :]))
                for x, size in zip(wide, sizes, strict=True)
            ]
            return jnp.concatenate(full, axis)

        return Constant(joined([c.values for c in constants]), joined([c.known for c in constants]))

    return Value(
        shape,
        tuple(a == axis or any(v.varies[a] for v in values) for a in range(len(shape))),
        (label,) if (label != FIXED).any() else (),
        flow.node(compute, *(value.node for value in values)),
        any(value.of_input for value in values),
        frozenset().union(*(value.paths for value in values)),
    )


def pad(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    value, filling = values
    widths = eqn.params["padding_config"]
    changed = tuple(axis for axis, each in enumerate(widths) if any(each))
    shape = eqn.outvars[0].aval.shape
    value = _without(flow, value, set(changed), "'pad' of its channels")

    def compute(constant: Constant, filling: Constant) -> Constant:
        rank = len(shape)
        values, known = (x if x.ndim else x.reshape((1,) * rank) for x in constant)
        equal = filling.known & (values == filling.values.astype(values.dtype))
        if all(values.shape[axis] == known.shape[axis] == 1 for axis in changed):
            return Constant(values, known & equal)
        full = np.broadcast_shapes(values.shape, known.shape)
        full = tuple(
            size if axis in changed else full[axis] for axis, size in enumerate(value.shape)
        )
        inside = [w if size > 1 else (0, 0, 0) for w, size in zip(widths, full, strict=True)]
        values, known = jnp.broadcast_to(values, full), jnp.broadcast_to(known, full)
        zero = jnp.zeros((), values.dtype)
        return Constant(jax.lax.pad(values, zero, inside), jax.lax.pad(known, False, inside))

    return Value(
        shape,
        tuple(varies or axis in changed for axis, varies in enumerate(value.varies)),
        value.labels,
        flow.node(compute, value.node, filling.node),
        value.of_input or filling.of_input,
        value.paths | filling.paths,
    )
