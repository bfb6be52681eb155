"""The program of the initial state, in which equal operations on keys are compiled as one loop."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from kdjax.models import initial_values

_Values = dict[Var, Any]

_FOLD_IN = "random_fold_in"  # the primitive of `jax.random.fold_in`


def with_loops(closed: ClosedJaxpr) -> Callable[..., list[Any]]:
    """The function of a jaxpr, with its operations on random keys in loops.

    What no result depends on is left out: the networks, which are run for the shapes of their
    parameters. Draws (`kdjax.models.initial_values`) of one initializer, shape and dtype become
    turns of one loop, which is compiled once, and so do the keys that are folded in for them. The
    values are the same.

    Args:
      closed: the jaxpr of a function that initializes.

    Returns:
      The function of the jaxpr's arguments that returns its results, as a list.
    """
    jaxpr = closed.jaxpr
    levels = list(_levels(jaxpr))

    def function(*arguments: Any) -> list[Any]:
        inputs = (*jaxpr.constvars, *jaxpr.invars)
        values = dict(zip(inputs, (*closed.consts, *arguments), strict=True))
        for others, loops in levels:
            values |= _evaluated(jaxpr, others, values)
            for equal in loops:
                values |= _looped(equal, values)
        return [_read(values, atom) for atom in jaxpr.outvars]

    return function


def _levels(jaxpr: Jaxpr) -> Iterator[tuple[list[JaxprEqn], list[list[JaxprEqn]]]]:
    """Equations outside of loops, in order, then those of each loop; both as often as needed.

    A level has the equations that depend on as many loops, one after the other, as its number.
    """
    others: defaultdict[int, list[JaxprEqn]] = defaultdict(list)
    loops: defaultdict[int, defaultdict[Hashable, list[JaxprEqn]]]
    loops = defaultdict(lambda: defaultdict(list))
    level_of: dict[Var, int] = {}
    for equation in _needed(jaxpr):
        level = max((level_of.get(variable, 0) for variable in _variables(equation)), default=0)
        loop = _loop(equation)
        if loop is None:
            others[level].append(equation)
        else:
            loops[level][loop].append(equation)
        level_of |= dict.fromkeys(equation.outvars, level + (loop is not None))
    for level in range(max((*others, *loops), default=-1) + 1):
        yield others[level], list(loops[level].values())


def _loop(equation: JaxprEqn) -> Hashable | None:
    """What equations that may be turns of one loop have in common; None for all others."""
    if equation.params.get("name") == initial_values.CALL:
        return id(equation.params["jaxpr"].jaxpr)
    if equation.primitive.name == _FOLD_IN:
        return tuple(atom.aval for atom in equation.invars)
    return None


def _needed(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The equations that results depend on, in order."""
    used, needed = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}, []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not used.isdisjoint(equation.outvars):
            needed.append(equation)
            used.update(_variables(equation))
    return needed[::-1]


def _evaluated(jaxpr: Jaxpr, equations: list[JaxprEqn], values: _Values) -> _Values:
    """The results of equations of a jaxpr."""
    results = [variable for equation in equations for variable in equation.outvars]
    read = itertools.chain.from_iterable(map(_variables, equations))
    inputs = [variable for variable in dict.fromkeys(read) if variable in values]
    part = jaxpr.replace(constvars=[], invars=inputs, outvars=results, eqns=equations)
    arrays = jaxpr_as_fun(ClosedJaxpr(part, []))(*(values[variable] for variable in inputs))
    return dict(zip(results, arrays, strict=True))


def _looped(equations: list[JaxprEqn], values: _Values) -> _Values:
    """The results of equations that are turns of one loop."""
    function = _fold_in
    if equations[0].primitive.name != _FOLD_IN:
        function = jaxpr_as_fun(equations[0].params["jaxpr"])
    arguments = [[_read(values, atom) for atom in equation.invars] for equation in equations]
    if len(equations) == 1:
        return dict(zip(equations[0].outvars, function(*arguments[0]), strict=True))
    stacked = [jnp.stack(turns) for turns in zip(*arguments, strict=True)]
    results = jax.lax.map(lambda turn: function(*turn), stacked)
    return {
        variable: result[turn]
        for turn, equation in enumerate(equations)
        for variable, result in zip(equation.outvars, results, strict=True)
    }


def _fold_in(key: jax.Array, data: jax.Array) -> list[jax.Array]:
    return [jax.random.fold_in(key, data)]


def _variables(equation: JaxprEqn) -> list[Var]:
    return [atom for atom in equation.invars if not isinstance(atom, Literal)]


def _read(values: _Values, atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]
