"""Operations that treat every number alike, whatever the order of the axes.

As all operations of this package: `(graph, equation, operands) -> operand`, with the meaning of
`jax.lax`. What their counterparts mean is in the ONNX operator reference, opset 17.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jax.extend.core import JaxprEqn

from kdjax.interop.onnx.graph import (
    Graph,
    Operand,
    Operation,
    Value,
    dtype_of,
    is_free,
    refuse,
    shape_of,
)


def alike(
    graph: Graph, equation: JaxprEqn, operands: list[Operand]
) -> tuple[list[str], tuple[int, ...]]:
    """Names of arrays stored in one order, and the order: that of the largest of them."""

    def size(value: Value) -> int:
        return math.prod(length for length in value.shape if not is_free(length))

    values = [operand for operand in operands if isinstance(operand, Value)]
    refuse(equation, not values)
    order = max(values, key=size).order
    # A scalar goes with every shape.
    return [graph.stored(operand, order if operand.shape else ()) for operand in operands], order


def _elementwise(counterpart: str) -> Callable[[Graph, JaxprEqn, list[Operand]], Value]:
    def write(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
        names, order = alike(graph, equation, operands)
        return Value(graph.node(counterpart, *names), shape_of(equation), order)

    return write


def _max(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    constants = [operand for operand in operands if isinstance(operand, np.ndarray)]
    if constants and not constants[0].any():  # engines fuse this one with a convolution
        operands = [operand for operand in operands if isinstance(operand, Value)]
        return _elementwise("Relu")(graph, equation, operands)
    return _elementwise("Max")(graph, equation, operands)


def _rsqrt(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    root = _elementwise("Sqrt")(graph, equation, operands)
    return root._replace(name=graph.node("Reciprocal", root.name))


def _square(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    return _elementwise("Mul")(graph, equation, operands * 2)


def _integer_pow(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    exponent = np.float32(equation.params["y"])
    return _elementwise("Pow")(graph, equation, [*operands, np.asarray(exponent)])


def _select(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Value:
    refuse(equation, len(operands) != 3, dtype_of(equation.invars[0]) != np.dtype(bool))
    which, if_false, if_true = operands
    return _elementwise("Where")(graph, equation, [which, if_true, if_false])


def _same(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Operand:
    del graph, equation
    return operands[0]


def _convert(graph: Graph, equation: JaxprEqn, operands: list[Operand]) -> Operand:
    refuse(equation, dtype_of(equation.invars[0]) != equation.params["new_dtype"])
    return _same(graph, equation, operands)  # a weak type became a strong one


OPERATIONS: dict[str, Operation] = {
    "abs": _elementwise("Abs"),
    "add": _elementwise("Add"),
    "convert_element_type": _convert,
    "div": _elementwise("Div"),
    "exp": _elementwise("Exp"),
    "integer_pow": _integer_pow,
    "log": _elementwise("Log"),
    "logistic": _elementwise("Sigmoid"),
    "max": _max,
    "min": _elementwise("Min"),
    "mul": _elementwise("Mul"),
    "neg": _elementwise("Neg"),
    "rsqrt": _rsqrt,
    "select_n": _select,
    "sqrt": _elementwise("Sqrt"),
    "square": _square,
    "stop_gradient": _same,
    "sub": _elementwise("Sub"),
    "tanh": _elementwise("Tanh"),
}
