"""PyTorch checkpoints: read without running code, mapped exactly, and written back.

    state = read("resnet56.pth")
    variables, report = import_state_dict(models.create("resnet56", num_classes=100), state)
    write("student.pth", export_state_dict(student, student_variables))

A state dict is `{name: numpy array}` here. Nothing but `read` and `write` of PyTorch's own formats
needs torch to be installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax import traverse_util

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import mapping
from kdjax.interop.files import StateDict, encoded, read, some, write

# Those files register their namings.
from kdjax.interop.names import deeplab, detection, online, self_kd  # noqa: F401

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

# What wrappers put before all names: DataParallel and AveragedModel (SWA); torch.compile; Lightning
# modules, which name the network as their author likes.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_AVERAGED = "n_averaged"  # how many networks AveragedModel has seen
_HIDDEN = frozenset({"classifier.6.weight", "pre_logits.fc1.weight"})
_IMAGE_SHAPE = (32, 32, 3)


class Report(NamedTuple):
    """What `import_state_dict` did.

    Attributes:
      dialect: whose names the state dict has.
      prefix: what all names began with, such as 'module.'; '' if nothing.
      rows: for every array (PyTorch name, PyTorch shape, path in kdjax's variables).
      counters: the batch counters of PyTorch's BatchNorm layers; kdjax has none.
      unread: arrays that the official network holds but never uses; kdjax has none.
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


def select(state: Mapping[str, Any], part: str = "") -> StateDict:
    """A state dict without what all its names have in common, or a part of it.

    Args:
      state: arrays by name. The prefixes of wrappers ('module.' of DataParallel and of averaged
        networks, 'model.' of Lightning, ...) are taken off, and SWA's count of networks.
      part: only names that begin with this and a dot are kept, without it: 'backbone' for the
        network inside one with auxiliary classifiers.

    Raises:
      UserError: no name begins so.
    """
    prefix = _common_prefix(state)
    state = {n.removeprefix(prefix): v for n, v in state.items() if n != _AVERAGED}
    if not part:
        return state
    prefix = f"{part}."
    kept = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if not kept:
        raise UserError(f"no array is named {prefix}...; there are {some(list(state))}")
    return kept


def _common_prefix(names: Iterable[str]) -> str:
    """The prefixes of wrappers that all names have in common, joined."""
    names, common = [name for name in names if name != _AVERAGED], ""
    while names:
        prefixes = (p for p in _PREFIXES if all(name.startswith(common + p) for name in names))
        prefix = next(prefixes, "")
        if not prefix:
            break
        common += prefix
    return common


def count_classes(module: nn.Module, state: Mapping[str, Any]) -> int:
    """How many classes a state dict's classifier has.

    Args:
      module: the network, for any number of classes.
      state: as `import_state_dict` takes it.

    Raises:
      UserError: no classifier of this network is in it.
    """
    state = select(state)
    _, entries = _best_dialect(module, mapping.shapes(module, _IMAGE_SHAPE), state)
    for entry in entries:
        own = entry.path[1] in ("classifier", "backbone", "head")
        if own and entry.path[-2:] == ("classifier", "bias") and entry.name in state:
            return _length(entry.name, state[entry.name])
    raise UserError(
        f"not a state dict of this network: it has no classifier, but {some(list(state))}"
        f"{_hint(state, [entry.name for entry in entries])}"
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
) -> tuple[dict, Report]:
    """The variables of `module` from a state dict of its official PyTorch counterpart.

    Args:
      module: a network of `kdjax.models`, or one with branches, or a `Cohort` of them.
      state: arrays by name. The prefixes of wrappers are taken off, as by `select`.
      image_shape: of the images that the network is for. Only the number of channels matters.

    Returns:
      `{'params': ..., 'batch_stats': ...}` in float32, and what was mapped.

    Raises:
      UserError: arrays that are missing, left over or of another shape (the message lists them), or
        a network that has no counterpart.
    """
    prefix = _common_prefix(state)
    state = {name: np.asarray(value) for name, value in select(state).items()}
    shapes = mapping.shapes(module, image_shape)
    dialect, entries = _best_dialect(module, shapes, state)
    counters = {name: state.pop(name) for name in mapping.counters(entries) if name in state}
    unread = {name: state.pop(name) for name in _unread(module, entries) if name in state}
    _check(entries, traverse_util.flatten_dict(shapes), state)
    _check_numbers(entries, state)
    values = {
        entry.path: np.ascontiguousarray(entry.from_torch(state[entry.name]), np.float32)
        for entry in entries
    }
    place = {name: number for number, name in enumerate(state)}
    entries = sorted(entries, key=lambda entry: place[entry.name])
    rows = [(e.name, state[e.name].shape, "/".join(e.path)) for e in entries]
    report = Report(dialect, prefix, rows, counters, unread)
    return traverse_util.unflatten_dict(values), report


def _unread(module: nn.Module, entries: list[mapping.Entry]) -> dict[str, str]:
    names = [entry.name for entry in entries] + mapping.counters(entries)
    return mapping.unread(module, names)


def _best_dialect(module: nn.Module, shapes: dict, state: Mapping[str, Any]):
    """The dialect that explains most names of the state dict, and the entries in it."""
    dialects = {
        dialect: mapping.entries(naming, shapes)
        for dialect, naming in mapping.namings(module).items()
    }
    dialect = max(dialects, key=lambda name: sum(entry.name in state for entry in dialects[name]))
    return dialect, dialects[dialect]


def _check(entries: list[mapping.Entry], expected: dict, state: StateDict) -> None:
    """Raises `UserError` unless the state dict has exactly the arrays that are expected."""
    names = {entry.name for entry in entries}
    missing = [entry.name for entry in entries if entry.name not in state]
    unexpected = [name for name in state if name not in names]
    wrong = []
    for entry in entries:
        if entry.name in state:
            shape, want = entry.from_torch(state[entry.name]).shape, expected[entry.path].shape
            if shape != want:
                want = entry.to_torch(np.broadcast_to(0, want)).shape
                wrong.append(f"{entry.name} {_shape(state[entry.name].shape)} not {_shape(want)}")
    problems = [
        f"{kind}: {some(items)}"
        for kind, items in (("missing", missing), ("left over", unexpected), ("shape", wrong))
        if items
    ]
    if problems:
        hint = _hint(unexpected, names)
        raise UserError(f"not a state dict of this network: {'; '.join(problems)}{hint}")


def _check_numbers(entries: list[mapping.Entry], state: StateDict) -> None:
    """Raises `UserError` unless the arrays are of real numbers that float32 can hold."""
    for entry in entries:
        array = state[entry.name]
        if array.dtype.kind not in "fiu":
            raise UserError(f"{entry.name} is of {array.dtype}, not of real numbers")
        if not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise UserError(f"{entry.name} has numbers that are not finite in float32")


def _hint(names: Iterable[str], expected: Iterable[str] = ()) -> str:
    """Which part of a state dict may be the network, from the names that do not belong to it."""
    names = list(names)
    if _HIDDEN.intersection(names):
        known = [name for name in models.names() if name.startswith("vgg")]
        return (
            "; it has hidden layers before its classifier, as torchvision's and timm's VGGs for "
            f"large images, which kdjax does not have; it has {', '.join(known)}"
        )
    if any(name.startswith("backbone.") for name in names):
        return "; the network inside one with auxiliary classifiers is its part 'backbone'"
    heads = dict.fromkeys(name.partition(".")[0] for name in names)
    for head in heads:
        inner = {n.removeprefix(f"{head}.") for n in names if n.startswith(f"{head}.")}
        if inner & set(expected):
            return f"; the network may be its part {head!r} (--torch_part={head})"
    return ""


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
    """The state dict with which the official PyTorch counterpart of `module` computes the same.

    Args:
      module: as of `import_state_dict`.
      variables: its variables.
      dialect: whose names to use; None is the network's own repository's.
      counters: values of BatchNorm's batch counters, by name; 0 for those that are not given.
      unread: values of what the official network never uses, by name; zeros by default.

    Returns:
      numpy arrays in PyTorch's layout, in float32; the counters are int64.

    Raises:
      UserError: the network has no counterpart, or none of that dialect.
    """
    namings = mapping.namings(module)
    dialect = dialect or next(iter(namings))
    if dialect not in namings:
        raise UserError(f"unknown dialect {dialect!r}; choose from {', '.join(namings)}")
    flat = traverse_util.flatten_dict(dict(variables))
    entries = mapping.entries(namings[dialect], variables)
    state = {
        entry.name: np.ascontiguousarray(entry.to_torch(np.asarray(flat[entry.path])))
        for entry in entries
    }
    for name in mapping.counters(entries):
        state[name] = np.asarray((counters or {}).get(name, 0), np.int64)
    for name, like in _unread(module, entries).items():
        state[name] = np.asarray((unread or {}).get(name, np.zeros_like(state[like])))
    return state
