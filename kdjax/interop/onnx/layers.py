"""Convolutions, matrix products, pooling and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from kdjax.interop.onnx.graph import (
    Graph,
    Operand,
    Operation,
    Value,
    plain,
    refuse,
    shape_of,
    value_of,
)


def _convolution(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    params, numbers = equation.params, equation.params["dimension_numbers"]
    refuse(
        equation,
        set(params["lhs_dilation"]) != {1},
        params["batch_group_count"] != 1,
        any(size < 0 for pair in params["padding"] for size in pair),
    )
    name = graph.node(
        "Conv",
        graph.stored(value_of(equation, operands[0]), numbers.lhs_spec),
        graph.stored(operands[1], numbers.rhs_spec),
        strides=params["window_strides"],
        pads=paired(params["padding"]),
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return Value(name, shape_of(equation), tuple(numbers.out_spec))


def paired(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Pairs (before, after) of all axes as ONNX has them: all before, then all after."""
    return [pair[0] for pair in padding] + [pair[1] for pair in padding]


def _dot(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    left, right = operands
    (contracted, batched) = equation.params["dimension_numbers"]
    as_matrices = ((len(left.shape) - 1,), (0,))
    refuse(
        equation,
        not isinstance(left, Value),
        tuple(map(tuple, contracted)) != as_matrices,
        any(batched),
        len(right.shape) != 2,
    )
    return plain(graph.node("MatMul", *map(graph.stored, operands)), shape_of(equation))


def _pool(counterpart: str, **attributes: Any) -> Callable[[Graph, JaxprEqn, list[Operand]], Value]:
    def write(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
        params = equation.params
        windows, padding = params["window_dimensions"], params["padding"]
        outer = [axis for axis in (0, len(windows) - 1) if windows[axis] == 1]
        inner = range(1, len(windows) - 1)
        refuse(
            equation,
            len(outer) != 2,
            {*params["base_dilation"], *params["window_dilation"]} != {1},
            any(sum(padding[axis]) for axis in outer),
        )
        order = (*outer, *inner)
        name = graph.node(
            counterpart,
            graph.stored(value_of(equation, operands[0]), order),
            kernel_shape=[windows[axis] for axis in inner],
            strides=[params["window_strides"][axis] for axis in inner],
            pads=paired([padding[axis] for axis in inner]),
            **attributes,
        )
        return Value(name, shape_of(equation), order)

    return write


def _sum_pool(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    mean = _pool("AveragePool", count_include_pad=1)(graph, equation, operands)
    size = np.float32(math.prod(equation.params["window_dimensions"]))
    name = graph.node("Mul", mean.name, graph.constant(np.asarray(size)))
    return mean._replace(name=name)


def _reduced(equation: JaxprEqn, operand: Value) -> tuple[list[int], tuple[int, ...]]:
    """Where the axes that vanish are stored, and the order of what is left without them."""
    axes = equation.params["axes"]
    left = [axis for axis in operand.order if axis not in axes]
    places = sorted(operand.order.index(axis) for axis in axes)
    return places, tuple(sorted(left).index(axis) for axis in left)


def _sum(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    value = value_of(equation, operands[0])
    places, order = _reduced(equation, value)
    axes = graph.constant(np.asarray(places, np.int64))
    return Value(graph.node("ReduceSum", value.name, axes, keepdims=0), shape_of(equation), order)


def _maximum(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    value = value_of(equation, operands[0])
    places, order = _reduced(equation, value)
    name = graph.node("ReduceMax", value.name, axes=places, keepdims=0)
    return Value(name, shape_of(equation), order)


OPERATIONS: dict[str, Operation] = {
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "reduce_max": _maximum,
    "reduce_sum": _sum,
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _sum_pool,
}
