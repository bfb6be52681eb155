"""From functions to ONNX files, and from these back to functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.extend.core import JaxprEqn

from kdjax.interop.onnx import axes, elementwise, layers
from kdjax.interop.onnx.graph import BATCH, Graph, Operand, Unsupported, dtype_of, is_free, plain

_OPERATIONS = elementwise.OPERATIONS | layers.OPERATIONS | axes.OPERATIONS

# Those that stand for a function, and where it is among their parameters.
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def convert(
    function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], name: str = "network"
) -> bytes:
    """A function of images as ONNX, for any number of images.

    Args:
      function: float32 images `[B, *shape]` to a float32 array `[B, ...]`; what it closes over
        becomes part of the file.
      shape: of one image.
      name: of the graph.

    Returns:
      The content of a file with an input 'images' and an output 'logits'.

    Raises:
      Unsupported: an operation of the function has no counterpart here.
    """
    (batch,) = jax.export.symbolic_shape(BATCH)
    images = jax.ShapeDtypeStruct((batch, *shape), np.float32)
    with jax.default_matmul_precision("highest"):  # for what is computed here
        traced = jax.make_jaxpr(function)(images)
        graph = Graph()
        value = plain("images", images.shape)
        (logits,) = _run(graph, traced.jaxpr, traced.consts, [value])
    return graph.serialized(value, logits, name)


def _run(
    graph: Graph, jaxpr: core.Jaxpr, constants: Sequence[Any], inputs: Sequence[Operand]
) -> list[Operand]:
    """Writes a traced function's operations; returns its outputs."""
    known: dict[Any, Operand] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    known |= zip(jaxpr.invars, inputs, strict=True)

    def read(atom: Any) -> Operand:
        if isinstance(atom, core.Literal):
            return np.asarray(atom.val, dtype_of(atom))
        return known[atom]

    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, list(map(read, equation.invars))
        if name in _CALLS:
            called = equation.params[_CALLS[name]]
            results = _run(graph, called.jaxpr, called.consts, operands)
        elif _is_constant(equation, operands):
            made = equation.primitive.bind(*operands, **equation.params)
            made = made if equation.primitive.multiple_results else [made]
            results = list(map(np.asarray, made))
        elif name in _OPERATIONS:
            results = [_OPERATIONS[name](graph, equation, operands)]
        else:
            raise Unsupported(f"{name} has no counterpart")
        known |= zip(equation.outvars, results, strict=True)
    return list(map(read, jaxpr.outvars))


def _is_constant(equation: JaxprEqn, operands: list[Operand]) -> bool:
    results: list[Any] = [made.aval for made in equation.outvars]
    sizes = [size for result in results for size in result.shape]
    free = any(map(is_free, [*sizes, *equation.params.values()]))
    return not free and all(isinstance(operand, np.ndarray) for operand in operands)


class Session:
    """A file that runs on the CPU: float32 images `[B, H, W, C]` to logits `[B, num_classes]`.

    ONNX Runtime's telemetry is switched off: when it is imported without this, it writes an
    identifier of the machine and a database to the user's cache, and reports what is run.
    """

    def __init__(self, file: Path):
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is imported
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        (logits,) = self._session.run(["logits"], {"images": images})
        return logits
