"""What primitives that do not contract make of values: arithmetic, shapes, reductions, pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.compaction.channel_flow import Chain, Constant, Flow, Value, dims

ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type
    copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow
    is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow
    reduce_precision rem round rsqrt select_n sign sin sinh sqrt square sub tan tanh xor
    """.split()  # noqa: SIM905
)


def elementwise(flow: Flow, eqn: Any, values: Sequence[Value]) -> Value:
    """Arithmetic: the channels of all operands are tied."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    values = [_as_rank(value, len(shape)) for value in values]

    dtypes = [var.aval.dtype for var in eqn.invars]

    def compute(*constants: Constant) -> Constant:
        arrays = [c.values.astype(dtype) for c, dtype in zip(constants, dtypes, strict=True)]
        operands = jnp.broadcast_arrays(*arrays)
        known = jnp.ones((), bool)
        for constant in constants:
            known = known & constant.known
        if name == "mul":
            for constant in constants:
                known = known | (constant.known & (constant.values == 0))
        return Constant(eqn.primitive.bind(*operands, **eqn.params), known)

    result = Value(
        shape,
        tuple(any(value.varies[axis] for value in values) for axis in range(len(shape))),
        _combined(flow, name, values),
        flow.node(compute, *(value.node for value in values)),
        any(value.of_input for value in values),
        frozenset().union(*(value.paths for value in values)),
    )
    _carry_sums(flow, name, values, result)
    return result


def _as_rank(value: Value, rank: int) -> Value:
    """A scalar operand as one of `rank` axes."""
    if len(value.shape) == rank:
        return value
    return Value((1,) * rank, (False,) * rank, (), value.node, value.of_input, value.paths)


def _combined(flow: Flow, name: str, values: Sequence[Value]) -> tuple[np.ndarray, ...]:
    """The labels of a value made of others, whose channels are tied."""
    kept: list[np.ndarray] = []
    for value in values:
        for label in value.labels:
            fits = True
            for other in values:
                if other is value or not any(other.varies[axis] for axis in dims(label)):
                    continue
                partners = [each for each in other.labels if dims(each) == dims(label)]
                for partner in partners:
                    flow.tie(label, partner, f"'{name}' of its channels and others that stay")
                if not partners:
                    flow.block(label, f"'{name}' with values that have no channels")
                    fits = False
            if fits and dims(label) not in map(dims, kept):
                kept.append(label)
    return tuple(kept)


def _carry_sums(flow: Flow, name: str, values: Sequence[Value], result: Value) -> None:
    """Follows contractions and parameters that are summands of the result."""
    if name == "convert_element_type":
        (value,) = values
        result.leaf = value.leaf
        carry(value, result)
        return
    chained = [index for index, value in enumerate(values) if value.chain]
    if name == "neg" and values[0].term:
        term = values[0].term
        result.term = term._replace(sign=-term.sign, chain=(*term.chain, result))
    if len(values) != 2:
        return
    first, second = values
    if name in ("add", "add_any", "sub") and not result.of_input:
        for value, other, sign in ((first, second, 1), (second, first, 1 - 2 * (name == "sub"))):
            if value.term and value.term.path not in other.paths:
                term = value.term
                result.term = term._replace(sign=sign * term.sign, chain=(*term.chain, result))
                return
    if len(chained) != 1:
        return
    value, other = values[chained[0]], values[1 - chained[0]]
    before = value.chain
    if before is None or other.of_input:
        return
    chain = before._replace(values=(*before.values, result))
    if name in ("add", "add_any", "sub"):
        negative = name == "sub"
        if negative and value is second:
            chain = _scaled(flow, chain, lambda a: -a)
        summand, outputs = other.term, before.contraction.outputs
        if summand and _same_filters(flow, value, outputs, other, summand.path):
            sign = -summand.sign if negative and value is first else summand.sign
            if chain.contraction.slot is None:
                # The values before the sum are the chain's; the sum itself may be used anyhow.
                chain = chain._replace(values=before.values)
                chain.contraction.slot = (summand._replace(sign=sign), chain)
            return
        result.chain = chain
    elif (name == "mul" or (name == "div" and value is first)) and _per_filter(value, other):
        multiply = jnp.multiply if name == "mul" else jnp.divide
        result.chain = _scaled(flow, chain, multiply, other.node)


def _scaled(flow: Flow, chain: Chain, function: Callable[..., jax.Array], *nodes: int) -> Chain:
    def compute(factor: Constant, *others: Constant) -> Constant:
        values = function(factor.values, *(other.values.ravel() for other in others))
        known = [constant.known.all() for constant in (factor, *others)]
        return Constant(values, jnp.stack(known).all())

    return chain._replace(factor=flow.node(compute, chain.factor, *nodes))


def _per_filter(value: Value, other: Value) -> bool:
    """Whether `other` is one number, or one for each filter of a contraction's output."""
    varies = tuple(axis for axis, varies in enumerate(other.varies) if varies)
    return not varies or (len(value.labels) == 1 and varies == dims(value.labels[0]))


def _same_filters(flow: Flow, value: Value, outputs: np.ndarray, other: Value, path: str) -> bool:
    """Whether a parameter has one number for each filter of a contraction, in the same order."""
    if not (len(value.labels) == len(other.labels) == 1 and _per_filter(value, other)):
        return False
    long = [channels for channels in flow.axes[path] if len(channels) > 1]
    return (
        len(long) == 1
        and np.array_equal(other.labels[0].ravel(), long[0])
        and np.array_equal(value.labels[0].ravel(), outputs)
    )


def carry(value: Value, result: Value) -> None:
    """Passes on what an operation that only moves entries does not change."""
    result.of_input, result.paths = value.of_input, value.paths
    if value.term:
        result.term = value.term._replace(chain=(*value.term.chain, result))
    if value.chain:
        result.chain = value.chain._replace(values=(*value.chain.values, result))
