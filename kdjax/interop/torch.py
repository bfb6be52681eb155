"""Conversion of PyTorch checkpoints to kdjax's variables, and back.

    state = read("resnet56.pth")
    variables, report = import_state_dict(models.create("resnet56", num_classes=100), state)
    write("student.pth", export_state_dict(student, student_variables))

A state dict is `{name: numpy array}` here. Files are read without executing code. Only `read` and
`write` of PyTorch's own formats need torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax import traverse_util

from kdjax.errors import UserError
from kdjax.interop import mapping, state_dict_entries
from kdjax.interop.files import StateDict, encoded, read, some, write

# These modules register their namings.
from kdjax.interop.names import deeplab, detection, online, self_kd  # noqa: F401
from kdjax.interop.state_dict_parts import common_prefix, part_hint, select

__all__ = [
    "Report",
    "StateDict",
    "count_classes",
    "encoded",
    "export_state_dict",
    "import_state_dict",
    "read",
    "select",
    "write",
]

_IMAGE_SHAPE = (32, 32, 3)


class Report(NamedTuple):
    """The result of the mapping in `import_state_dict`.

    Attributes:
      dialect: the naming scheme of the state dict, by its repository.
      prefix: the common prefix of all names, such as 'module.'; '' if there is none.
      rows: (PyTorch name, PyTorch shape, path in kdjax's variables) of every array.
      counters: the batch counters of PyTorch's BatchNorm layers; kdjax has none.
      unread: arrays of the official network that its forward pass never uses; kdjax has none.
    """

    dialect: str
    prefix: str
    rows: list[tuple[str, tuple[int, ...], str]]
    counters: StateDict
    unread: StateDict

    def __str__(self) -> str:
        width = max(len(name) for name, _, _ in self.rows)
        lines = [f"{n:<{width}}  {_shape(shape):>16}  {path}" for n, shape, path in self.rows]
        after = f" after {self.prefix!r}" if self.prefix else ""
        lines.append(f"{len(self.rows)} arrays, named as by {self.dialect}{after}")
        if self.counters:
            lines.append(f"{len(self.counters)} batch counters have no counterpart in kdjax")
        if self.unread:
            lines.append(f"never used by the official network: {some(list(self.unread))}")
        return "\n".join(lines)


def count_classes(module: nn.Module, state: Mapping[str, Any]) -> int:
    """The number of classes of the classifier in a state dict.

    Args:
      module: the network, with any number of classes.
      state: as in `import_state_dict`.

    Raises:
      UserError: the state dict has no classifier of this network.
    """
    state = select(state)
    _, entries = _best_dialect(module, mapping.shapes(module, _IMAGE_SHAPE), state)
    for entry in entries:
        if entry.path[-2:] != ("classifier", "bias") or entry.name not in state:
            continue
        if entry.path[1] in ("classifier", "backbone", "head"):
            return _length(entry.name, state[entry.name])
        if entry.path[1] == "box_heads_0":  # the first class is the background
            return _length(entry.name, state[entry.name]) - 1
    raise UserError(
        f"not a state dict of this network: it has no classifier, but {some(list(state))}"
        f"{part_hint(state, [entry.name for entry in entries])}"
    )


def _length(name: str, bias: Any) -> int:
    shape = np.shape(bias)
    if len(shape) != 1 or not shape[0]:
        raise UserError(
            f"not a state dict of this network: {name}, the classifier's bias, has the shape "
            f"{_shape(shape)}; it has one number for each class"
        )
    return shape[0]


def import_state_dict(
    module: nn.Module,
    state: Mapping[str, Any],
    *,
    image_shape: tuple[int, int, int] = _IMAGE_SHAPE,
) -> tuple[dict[str, Any], Report]:
    """Converts a state dict of the official PyTorch counterpart of `module` to its variables.

    Args:
      module: a network of `kdjax.models`, with or without branches, or a `Cohort` of networks.
      state: arrays by name. The prefixes of wrappers are removed, as by `select`.
      image_shape: the shape `(H, W, C)` of the input images; only the number of channels matters.

    Returns:
      `{'params': ..., 'batch_stats': ...}` in float32, and a report of the mapping.

    Raises:
      UserError: missing or unexpected arrays or arrays of another shape (the message lists them),
        values that are not finite, or a network without a counterpart.
    """
    prefix = common_prefix(state)
    state = {name: np.asarray(value) for name, value in select(state).items()}
    shapes = mapping.shapes(module, image_shape)
    dialect, entries = _best_dialect(module, shapes, state)
    counters = {
        name: state.pop(name) for name in state_dict_entries.counters(entries) if name in state
    }
    unread = {name: state.pop(name) for name in _unread(module, entries) if name in state}
    _check(entries, traverse_util.flatten_dict(shapes), state)
    _check_numbers(entries, state)
    values = {
        entry.path: np.ascontiguousarray(entry.from_torch(state[entry.name]), np.float32)
        for entry in entries
    }
    position = {name: number for number, name in enumerate(state)}
    entries = sorted(entries, key=lambda entry: position[entry.name])
    rows = [(e.name, state[e.name].shape, "/".join(e.path)) for e in entries]
    report = Report(dialect, prefix, rows, counters, unread)
    return traverse_util.unflatten_dict(values), report


def _unread(module: nn.Module, entries: list[state_dict_entries.Entry]) -> dict[str, str]:
    names = [entry.name for entry in entries] + state_dict_entries.counters(entries)
    return mapping.unread(module, names)


def _best_dialect(
    module: nn.Module, shapes: dict[str, Any], state: Mapping[str, Any]
) -> tuple[str, list[state_dict_entries.Entry]]:
    """The dialect with the most names in the state dict, and its entries."""
    dialects = {
        dialect: state_dict_entries.entries(naming, shapes)
        for dialect, naming in mapping.namings(module).items()
    }
    dialect = max(dialects, key=lambda name: sum(entry.name in state for entry in dialects[name]))
    return dialect, dialects[dialect]


def _check(
    entries: list[state_dict_entries.Entry], expected: dict[tuple[str, ...], Any], state: StateDict
) -> None:
    """Raises `UserError` unless the state dict has exactly the expected arrays."""
    names = {entry.name for entry in entries}
    missing = [entry.name for entry in entries if entry.name not in state]
    unexpected = [name for name in state if name not in names]
    wrong = []
    for entry in entries:
        if entry.name in state:
            shape = entry.from_torch(state[entry.name]).shape
            expected_shape = expected[entry.path].shape
            if shape != expected_shape:
                torch_shape = entry.to_torch(np.broadcast_to(0, expected_shape)).shape
                wrong.append(
                    f"{entry.name} {_shape(state[entry.name].shape)} not {_shape(torch_shape)}"
                )
    problems = [
        f"{kind}: {some(items)}"
        for kind, items in (("missing", missing), ("left over", unexpected), ("shape", wrong))
        if items
    ]
    if problems:
        hint = part_hint(unexpected, names)
        raise UserError(f"not a state dict of this network: {'; '.join(problems)}{hint}")


def _check_numbers(entries: list[state_dict_entries.Entry], state: StateDict) -> None:
    """Raises `UserError` unless all values are real and finite in float32."""
    for entry in entries:
        array = state[entry.name]
        if array.dtype.kind not in "fiu":
            raise UserError(f"{entry.name} is of {array.dtype}, not of real numbers")
        if not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise UserError(f"{entry.name} has numbers that are not finite in float32")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def export_state_dict(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    dialect: str | None = None,
    counters: Mapping[str, np.ndarray] | None = None,
    unread: Mapping[str, np.ndarray] | None = None,
) -> StateDict:
    """Converts variables to a state dict of the official PyTorch counterpart of `module`.

    Args:
      module: as in `import_state_dict`.
      variables: the variables of `module`.
      dialect: the naming scheme; None for that of the network's official repository.
      counters: values of BatchNorm's batch counters, by name; 0 by default.
      unread: values of arrays that the official network never uses, by name; zeros by default.

    Returns:
      numpy arrays in PyTorch's layout, float32 but for the int64 counters.

    Raises:
      UserError: the network has no counterpart, or no such dialect.
    """
    namings = mapping.namings(module)
    dialect = dialect or next(iter(namings))
    if dialect not in namings:
        raise UserError(f"unknown dialect {dialect!r}; choose from {', '.join(namings)}")
    flat = traverse_util.flatten_dict(dict(variables))
    entries = state_dict_entries.entries(namings[dialect], variables)
    state = {
        entry.name: np.ascontiguousarray(entry.to_torch(np.asarray(flat[entry.path])))
        for entry in entries
    }
    for name in state_dict_entries.counters(entries):
        state[name] = np.asarray((counters or {}).get(name, 0), np.int64)
    for name, like in _unread(module, entries).items():
        state[name] = np.asarray((unread or {}).get(name, np.zeros_like(state[like])))
    return state
