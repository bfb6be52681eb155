"""Operations that move, repeat, join or pick what there is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from kdjax.interop.onnx.elementwise import alike
from kdjax.interop.onnx.graph import (
    Graph,
    Operand,
    Operation,
    Shape,
    Value,
    constant_of,
    is_free,
    plain,
    refuse,
    shape_of,
    value_of,
)
from kdjax.interop.onnx.layers import paired

_FREE = -1  # what a free size is in the target of a Reshape


def _reshaped(graph: Graph, equation: JaxprEqn, value: Value, shape: Shape) -> Value:
    """At most one axis of `shape` may be free."""
    if shape == value.shape:
        return value
    sizes = [_FREE if is_free(size) else size for size in shape]
    refuse(equation, sizes.count(_FREE) > 1)
    target = graph.constant(np.asarray(sizes, np.int64))
    return plain(graph.node("Reshape", graph.stored(value), target), shape)


def _reshape(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    return _reshaped(graph, equation, value_of(equation, operands[0]), shape_of(equation))


def _broadcast(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Operand:
    """A constant gets a size of 1 instead of the free one; element by element, that is the same."""
    (operand,), shape = operands, shape_of(equation)
    narrow: list[Any] = [1] * len(shape)
    for axis, size in zip(equation.params["broadcast_dimensions"], operand.shape, strict=True):
        narrow[axis] = size
    sizes = [1 if is_free(size) else size for size in shape]
    if isinstance(operand, np.ndarray):
        return np.broadcast_to(operand.reshape(narrow), sizes)
    refuse(equation, sum(map(is_free, shape)) != sum(map(is_free, narrow)))
    value = _reshaped(graph, equation, operand, tuple(narrow))
    if value.shape == shape:
        return value
    target = graph.constant(np.asarray(sizes, np.int64))  # 1: as it is
    return plain(graph.node("Expand", graph.stored(value), target), shape)


def _transpose(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    """Nothing is moved: the axes get other numbers."""
    del graph
    value, axes = value_of(equation, operands[0]), tuple(equation.params["permutation"])
    order = tuple(axes.index(axis) for axis in value.order)
    return Value(value.name, shape_of(equation), order)


def _concatenate(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    names, order = alike(graph, equation, [value_of(equation, operand) for operand in operands])
    axis = order.index(equation.params["dimension"])
    return Value(graph.node("Concat", *names, axis=axis), shape_of(equation), order)


def _pad(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    value, filler = value_of(equation, operands[0]), constant_of(equation, operands[1])
    padding = [equation.params["padding_config"][axis] for axis in value.order]
    refuse(equation, any(low < 0 or high < 0 or inner for low, high, inner in padding))
    pads = graph.constant(np.asarray(paired(padding), np.int64))
    name = graph.node("Pad", value.name, pads, graph.constant(filler), mode="constant")
    return Value(name, shape_of(equation), value.order)


def _pick(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    """Some of the rows of every axis, in whatever way the function asks for them.

    The operation itself, done to the numbers of all places, tells which places it takes.
    """
    value = value_of(equation, operands[0])
    where = [constant_of(equation, operand) for operand in operands[1:]]
    refuse(equation, _free(value.shape) != _free(shape_of(equation)))
    shape = tuple(1 if is_free(size) else size for size in value.shape)
    places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    params = {name: _without_free(parameter) for name, parameter in equation.params.items()}
    taken = np.asarray(equation.primitive.bind(places, *where, **params))
    refuse(equation, taken.ndim != places.ndim, taken.size == 0)
    rows = []
    for axis, count in enumerate(taken.shape):
        line = np.moveaxis(taken, axis, 0).reshape(count, -1)[:, 0]
        rows.append(np.unravel_index(line, shape)[axis])
    refuse(equation, not np.array_equal(taken, places[np.ix_(*rows)]))
    name = value.name
    for axis, chosen in enumerate(rows):
        if not np.array_equal(chosen, np.arange(shape[axis])):
            name = _rows(graph, name, value.order.index(axis), chosen)
    return Value(name, shape_of(equation), value.order)


def _free(shape: Shape) -> list[tuple[int, Any]]:
    return [(axis, size) for axis, size in enumerate(shape) if is_free(size)]


def _without_free(parameter: Any) -> Any:
    if type(parameter) is tuple:
        return tuple(1 if is_free(size) else size for size in parameter)
    return parameter


def _rows(graph: Graph, name: str, axis: int, rows: np.ndarray) -> str:
    """Rows of one axis, by a slice if they are evenly spaced."""
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    if step > 0 and (np.diff(rows) == step).all():
        bounds = (rows[0], rows[-1] + 1, axis, step)
        return graph.node(
            "Slice", name, *(graph.constant(np.asarray([bound], np.int64)) for bound in bounds)
        )
    return graph.node("Gather", name, graph.constant(rows.astype(np.int64)), axis=axis)


OPERATIONS: dict[str, Operation] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "gather": _pick,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _pick,
    "squeeze": _reshape,
    "transpose": _transpose,
}
