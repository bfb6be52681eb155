"""What is known of the values of a forward pass: which channels they hold, and their constants.

Every position along every axis of every parameter has a number, its *channel*. Channels that one
value holds in the same place (the summands of a residual sum, a convolution's filter and the bias,
the BatchNorm and the consumers' weights of it) are tied: they are kept or removed together. A value
carries the numbers of its channels through reshaping, slicing and concatenation, so channels are
tied one by one, and layers only in so far as their channels are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# No channel: a position that cannot be removed, such as one that was padded.
FIXED = -1


class Constant(NamedTuple):
    """What a value is for every input, as far as that is known.

    Attributes:
      values: of a shape that broadcasts to the value's.
      known: bool, likewise; where it is False, `values` mean nothing.
    """

    values: jax.Array
    known: jax.Array


class Term(NamedTuple):
    """A parameter as a summand: the value is `sign * parameter` plus what does not depend on it.

    Attributes:
      path: of the parameter.
      sign: 1 or -1.
      chain: the values from the parameter to this one, each of which must be used once.
    """

    path: str
    sign: int
    chain: tuple[Value, ...]


class Chain(NamedTuple):
    """A contraction's output as a summand: the value is `factor * output` plus something else.

    Attributes:
      contraction: whose output it is.
      factor: node of the factor per filter, `[C]` or `[1]`.
      values: those from the output to this one, each of which must be used once.
    """

    contraction: Contraction
    factor: int
    values: tuple[Value, ...]


@dataclasses.dataclass(eq=False)
class Value:
    """A value of the forward pass.

    Attributes:
      shape: of the value.
      varies: whether its entries may differ along each axis.
      labels: arrays of channels, each of a shape that broadcasts to the value's. Axes longer than 1
        are those along which the channels differ.
      node: of its constant.
      of_input: whether it depends on the inputs, or is unknown; otherwise it is made of parameters.
      paths: the parameters that it is made of.
      leaf: the parameter that it is, transposed or cast.
      term: see `Term`; None where no parameter is a summand.
      chain: see `Chain`.
      uses: how often it is an operand.
    """

    shape: tuple[int, ...]
    varies: tuple[bool, ...]
    labels: tuple[np.ndarray, ...]
    node: int
    of_input: bool
    paths: frozenset[str] = frozenset()
    leaf: str | None = None
    term: Term | None = None
    chain: Chain | None = None
    uses: int = 0


@dataclasses.dataclass(eq=False)
class Contraction:
    """A convolution or a matrix product with a kernel: makes channels and consumes others.

    Attributes:
      kernel: path of the kernel.
      outputs: channels of the kernel's filters, `[C]`.
      inputs: channels that it reads, `[N]`, or None where it reads none that can be removed.
      kernel_inputs: the kernel's own channels along the axis that it reads them with, `[N]`.
      constant: node of what it reads.
      channel_axis: the axis of what it reads that has the channels.
      padded: whether zeros are read around them.
      depthwise: whether every filter reads one channel.
      slot: where a constant that is added to its output can be put: a parameter's `Term` and the
        `Chain` from the output to it.
    """

    kernel: str
    outputs: np.ndarray
    inputs: np.ndarray | None
    kernel_inputs: np.ndarray
    constant: int
    channel_axis: int
    padded: bool
    depthwise: bool = False
    slot: tuple[Term, Chain] | None = None

    @property
    def foldable(self) -> bool:
        """Whether what is put into the slot is added to the output, and to nothing else."""
        if self.slot is None:
            return False
        term, chain = self.slot
        return all(value.uses == 1 for value in (*term.chain, *chain.values))


class Flow:
    """A record of a forward pass: channels, ties between them, contractions, constants.

    Attributes:
      axes: the channels of the parameters' axes, by path: one array `[n]` per axis.
      contractions: in the order of the forward pass.
      blocked: channels that must stay, with the reasons.
    """

    def __init__(self) -> None:
        self.axes: dict[str, list[np.ndarray]] = {}
        self.contractions: list[Contraction] = []
        self.blocked: list[tuple[np.ndarray, str]] = []
        self._count = 0
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._compiled: dict[tuple[int, ...], tuple[list[Any], Callable[..., Any]]] = {}
        self._nodes: list[tuple[Callable[..., Constant] | _Given, tuple[int, ...]]] = []
        self.unknown = self.node(lambda: Constant(jnp.zeros(()), jnp.zeros((), bool)))

    def parameter(self, path: str, shape: tuple[int, ...]) -> Value:
        """A parameter, every axis of which has channels of its own."""
        self.axes[path], labels = [], []
        for axis, size in enumerate(shape):
            channels = np.arange(self._count, self._count + size)
            self._count += size
            self.axes[path].append(channels)
            if size > 1:
                labels.append(channels.reshape([-1 if a == axis else 1 for a in range(len(shape))]))
        node = self.given(path)
        varies = tuple(size > 1 for size in shape)
        value = Value(shape, varies, tuple(labels), node, False, frozenset([path]), path)
        value.term = Term(path, 1, (value,))
        return value

    def node(self, compute: Callable[..., Constant] | _Given, *inputs: int) -> int:
        """A new node, computed from the constants of other nodes."""
        self._nodes.append((compute, inputs))
        return len(self._nodes) - 1

    def given(self, name: Any) -> int:
        """A new node whose constant is an array that `evaluate` is given by this name."""
        return self.node(_Given(name))

    def tie(self, some: np.ndarray, others: np.ndarray, reason: str) -> None:
        """Ties channels one by one; those that meet `FIXED` ones stay, for a reason."""
        some, others = (array.ravel() for array in np.broadcast_arrays(some, others))
        both = (some != FIXED) & (others != FIXED)
        self._ties.append((some[both], others[both]))
        self.block(np.concatenate([some[~both], others[~both]]), reason)

    def block(self, channels: np.ndarray, reason: str) -> None:
        """Channels that must stay."""
        channels = channels[channels != FIXED]
        if channels.size:
            self.blocked.append((channels, reason))

    def components(self) -> np.ndarray:
        """The set of tied channels that every channel is in: `[channels]`."""
        rows, columns = (
            np.concatenate([t[i] for t in self._ties] or [np.zeros(0, np.int64)]) for i in (0, 1)
        )
        size = max(self._count, 1)
        from scipy.sparse import coo_matrix, csgraph  # late: it takes a third of a second

        graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
        return csgraph.connected_components(graph, directed=False)[1]

    def evaluate(self, nodes: Sequence[int], given: Mapping[Any, Any]) -> list[Constant]:
        """The constants of nodes.

        Args:
          nodes: whose constants.
          given: the arrays that `given` nodes name.
        """
        names, run = self._compiled.get(tuple(nodes)) or self._compile(tuple(nodes))
        return run([given[name] for name in names])

    def _compile(self, nodes: tuple[int, ...]) -> tuple[list[Any], Callable[..., Any]]:
        """The names of the arrays that nodes need, and the function from these to constants."""
        needed = sorted(_needed(self._nodes, nodes))
        computed = [self._nodes[index] for index in needed]
        names = [compute.name for compute, _ in computed if isinstance(compute, _Given)]

        @jax.jit
        def run(arrays: list[jax.Array]) -> list[Constant]:
            by_name = dict(zip(names, arrays, strict=True))
            constants: dict[int, Constant] = {}
            for index, (compute, inputs) in zip(needed, computed, strict=True):
                if isinstance(compute, _Given):
                    array = by_name[compute.name]
                    constants[index] = Constant(array, jnp.ones((1,) * array.ndim, bool))
                else:
                    constants[index] = compute(*(constants[i] for i in inputs))
            return [constants[node] for node in nodes]

        self._compiled[nodes] = names, run
        return names, run


class _Given(NamedTuple):
    """The computation of a node that `evaluate` is given."""

    name: Any


def _needed(nodes: Sequence[tuple[Any, tuple[int, ...]]], wanted: Sequence[int]) -> set[int]:
    needed, stack = set(), list(wanted)
    while stack:
        index = stack.pop()
        if index not in needed:
            needed.add(index)
            stack += nodes[index][1]
    return needed


def dims(array: np.ndarray) -> tuple[int, ...]:
    """The axes that are longer than 1."""
    return tuple(axis for axis, size in enumerate(array.shape) if size > 1)
