"""Links of a network's layers, found in its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.compaction import arithmetic_rules, contraction_rules, reduction_rules, shape_rules
from kdjax.compaction.channel_flow import Constant, Flow, Value
from kdjax.compaction.link_table import Links, trees_of
from kdjax.errors import UserError
from kdjax.tree import leaves

_RULES: dict[str, Callable[[Flow, Any, Sequence[Value]], Value | None]] = {
    **dict.fromkeys(arithmetic_rules.ELEMENTWISE, arithmetic_rules.elementwise),
    "broadcast_in_dim": shape_rules.broadcast_in_dim,
    "concatenate": shape_rules.concatenate,
    "conv_general_dilated": contraction_rules.convolution,
    "dot_general": contraction_rules.product,
    "pad": shape_rules.pad,
    "reduce_max": reduction_rules.reduce,
    "reduce_min": reduction_rules.reduce,
    "reduce_sum": reduction_rules.reduce,
    "reduce_window_max": reduction_rules.pool,
    "reduce_window_sum": reduction_rules.pool,
    "reshape": shape_rules.reshape,
    "rev": shape_rules.indexed,
    "slice": shape_rules.indexed,
    "squeeze": shape_rules.squeeze,
    "transpose": shape_rules.transpose,
}


def trace_links(fn: Callable[..., Any], params: Any, *inputs: Any) -> Links:
    """Finds which layer feeds which in the forward pass of any network.

    Every convolution's and dense layer's filters are followed through the jaxpr of `fn` to all
    that is indexed by the same channels: biases, BatchNorm and depthwise convolutions, the other
    summands of residual sums, the weights of the consumers. Channels that meet an operation which
    is not understood, or reach the outputs, must stay, and the table says why. Nothing is computed.

    Args:
      fn: the network in evaluation mode, `fn(params, *inputs)`, or `fn(*params, *inputs)` if
        `params` is a tuple; of flax.linen, flax.nnx (`nnx.split`), Equinox (`equinox.partition`),
        or a function of your own.
      params: a pytree of arrays, or a tuple of pytrees of which the first is trained, such as
        `(params, batch_stats)`. Paths in all that follows are those inside of each tree.
      *inputs: arrays or their shapes. Two images of the smallest size will do.

    Returns:
      The links; print them to check.

    Raises:
      UserError: a leaf that is no array, or an array of the same path in two trees.
    """
    trees = trees_of(params)
    arrays = named(trees)
    jaxpr = jax.make_jaxpr(lambda trees, inputs: fn(*trees, *inputs))(trees, inputs)
    flow = Flow()
    values = [flow.parameter(path, tuple(array.shape)) for path, array in arrays.items()]
    for var in jaxpr.jaxpr.invars[len(values) :]:
        shape = var.aval.shape
        values.append(Value(shape, tuple(size > 1 for size in shape), (), flow.unknown, True))
    results = _run(flow, jaxpr.jaxpr, jaxpr.consts, values)
    for value in results:
        value.uses += 1
        for label in value.labels:
            flow.block(label, "an output of the network")
    shapes = {path: tuple(array.shape) for path, array in arrays.items()}
    return Links(flow, shapes, frozenset(leaves(trees[0])))


def named(trees: Sequence[Any]) -> dict[str, Any]:
    """The arrays of trees by their paths.

    Raises:
      UserError: a leaf that is no array, or two arrays of one path.
    """
    arrays: dict[str, Any] = {}
    for tree in trees:
        for path, leaf in leaves(tree).items():
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise UserError(
                    f"{path!r} is no array: take the arrays out of the module first, as by "
                    "equinox.partition(module, equinox.is_array)"
                )
            if path in arrays:
                raise UserError(f"two trees of params have an array {path!r}")
            arrays[path] = leaf
    return arrays


def _run(flow: Flow, jaxpr: Any, consts: Sequence[Any], values: Sequence[Value]) -> list[Value]:
    """The values of a jaxpr's outputs."""
    env: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=True))
    env |= {var: _literal(flow, const) for var, const in zip(jaxpr.constvars, consts, strict=True)}

    def read(var: Any) -> Value:
        return _literal(flow, var.val) if hasattr(var, "val") else env[var]

    for eqn in jaxpr.eqns:
        operands = [read(var) for var in eqn.invars]
        called = _called(eqn)
        if called is not None:
            inner, inner_consts = getattr(called, "jaxpr", called), getattr(called, "consts", ())
            env |= zip(eqn.outvars, _run(flow, inner, inner_consts, operands), strict=True)
            continue
        for value in operands:
            value.uses += 1
        rule = _RULES.get(eqn.primitive.name)
        result = rule(flow, eqn, operands) if rule else None
        if result is not None:
            env[eqn.outvars[0]] = result
        else:
            env |= zip(eqn.outvars, _unknown(flow, eqn, operands), strict=True)
    return [read(var) for var in jaxpr.outvars]


def _unknown(flow: Flow, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    """The results of an operation that is not understood."""
    for value in operands:
        for label in value.labels:
            flow.block(label, f"goes through '{eqn.primitive.name}'")
    shapes = [getattr(var.aval, "shape", ()) for var in eqn.outvars]
    return [
        Value(shape, tuple(size > 1 for size in shape), (), flow.unknown, True) for shape in shapes
    ]


def _literal(flow: Flow, const: Any) -> Value:
    """A number or an array that the function holds."""
    array = np.asarray(const) if not isinstance(const, jax.Array) else const
    node = flow.node(lambda: Constant(jnp.asarray(array), jnp.ones((1,) * array.ndim, bool)))
    varies = tuple(size > 1 for size in array.shape)
    return Value(tuple(array.shape), varies, (), node, False)


def _called(eqn: Any) -> Any | None:
    """The jaxpr that an equation calls once, with its operands; None if it does not."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr") if eqn.primitive.name in _CALLS else ()
    return next((eqn.params[name] for name in names if name in eqn.params), None)


_CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}
