"""The nodes and constants of an ONNX file, in the making."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import JaxprEqn

OPSET = 17
BATCH = "batch"  # the name of the free axis
_IR_VERSION = 8  # the files' format when this opset came out, which older programs can read too


class Unsupported(Exception):
    """An operation that cannot be written. Its text names it."""


Shape = tuple[Any, ...]  # of whole numbers; one axis may be the free batch


class Value(NamedTuple):
    """An array that is known when the file is run.

    Attributes:
      name: in the file.
      shape: as the function sees it; one axis may be the free batch.
      order: the function's axes in the order in which they are stored.
    """

    name: str
    shape: Shape
    order: tuple[int, ...]


Operand = Value | np.ndarray  # an array of the file, or a constant


def is_free(size: Any) -> bool:
    """Whether the size of an axis is known only when the file is run."""
    return jax.export.is_symbolic_dim(size)


class Graph:
    """The nodes and constants of a file, in the making."""

    def __init__(self) -> None:
        import onnx

        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._transposed: dict[tuple[str, tuple[int, ...]], str] = {}

    def constant(self, array: np.ndarray) -> str:
        """The name of an array that is part of the file."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(
            self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        )
        return name

    def node(
        self, operation: str, *inputs: str, output: str | None = None, **attributes: Any
    ) -> str:
        """Adds a node; returns the name of its output."""
        name = output or f"{operation.lower()}_{len(self._nodes)}"
        made = self._onnx.helper.make_node(operation, inputs, [name], name, **attributes)
        self._nodes.append(made)
        return name

    def stored(self, operand: Operand, order: Sequence[int] | None = None) -> str:
        """The name of an array whose axes are stored in `order`; None: as the function has them."""
        order = tuple(range(len(operand.shape)) if order is None else order)
        if isinstance(operand, np.ndarray):
            return self.constant(operand.transpose(order))
        if operand.order == order:
            return operand.name
        key = (operand.name, order)
        if key not in self._transposed:
            axes = [operand.order.index(axis) for axis in order]
            self._transposed[key] = self.node("Transpose", operand.name, perm=axes)
        return self._transposed[key]

    def serialized(self, images: Value, logits: Operand, name: str) -> bytes:
        """The file's content.

        Args:
          images, logits: input and output.
          name: of the graph.
        """
        helper = self._onnx.helper
        self.node("Identity", self.stored(logits), output="logits")
        graph = helper.make_graph(
            self._nodes,
            name,
            [self._described(images.name, images.shape)],
            [self._described("logits", logits.shape)],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="kdjax",
        )
        self._onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _described(self, name: str, shape: Shape) -> Any:
        sizes = [BATCH if is_free(size) else size for size in shape]
        number = self._onnx.TensorProto.FLOAT
        return self._onnx.helper.make_tensor_value_info(name, number, sizes)


Operation = Callable[[Graph, JaxprEqn, list[Operand]], Operand]


def shape_of(equation: JaxprEqn) -> Shape:
    """The shape of what an operation makes."""
    made: Any = equation.outvars[0].aval
    return tuple(made.shape)


def dtype_of(atom: Any) -> np.dtype:
    """The dtype of an operand of a traced operation."""
    return atom.aval.dtype


def plain(name: str, shape: Shape) -> Value:
    """An array whose axes are stored as the function has them."""
    return Value(name, shape, tuple(range(len(shape))))


def refuse(equation: JaxprEqn, *conditions: bool) -> None:
    """Refuses an operation of which any condition holds.

    Raises:
      Unsupported: one does.
    """
    if any(conditions):
        raise _unsupported(equation)


def _unsupported(equation: JaxprEqn) -> Unsupported:
    return Unsupported(f"{equation.primitive.name} in this form has no counterpart")


def value_of(equation: JaxprEqn, operand: Operand) -> Value:
    """An operand that must not be a constant: those may lack the free axis (`axes`).

    Raises:
      Unsupported: it is one.
    """
    if not isinstance(operand, Value):
        raise _unsupported(equation)
    return operand


def constant_of(equation: JaxprEqn, operand: Operand) -> np.ndarray:
    """An operand that must be a constant.

    Raises:
      Unsupported: it is none.
    """
    if isinstance(operand, Value):
        raise _unsupported(equation)
    return operand
