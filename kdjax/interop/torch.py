"""PyTorch checkpoints: read without running code, mapped exactly, and written back.

    state = read("resnet56.pth")
    variables, report = import_state_dict(models.create("resnet56", num_classes=100), state)
    write("student.pth", export_state_dict(student, student_variables))

A state dict is `{name: numpy array}` here. Nothing but `read` and `write` of PyTorch's own formats
needs torch to be installed.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax import traverse_util

from kdjax.errors import UserError
from kdjax.interop import mapping

StateDict = dict[str, np.ndarray]

# Where official training scripts put the state dict in what they save.
_NESTED = ("net", "state_dict", "model", "model_state_dict", "student", "teacher")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, of torch.compile
_SHOWN = 4


class Report(NamedTuple):
    """What `import_state_dict` did.

    Attributes:
      dialect: whose names the state dict has.
      rows: for every array (PyTorch name, PyTorch shape, path in kdjax's variables).
      unwrapped: prefixes that were taken off all names.
      unused: names outside the part that was asked for.
      counters: the batch counters of PyTorch's BatchNorm layers; kdjax has none.
    """

    dialect: str
    rows: list[tuple[str, tuple[int, ...], str]]
    unwrapped: list[str]
    unused: list[str]
    counters: StateDict

    def __str__(self) -> str:
        width = max(len(name) for name, _, _ in self.rows)
        lines = [
            f"{name:<{width}}  {'x'.join(map(str, shape)) or 'scalar':>16}  {path}"
            for name, shape, path in self.rows
        ]
        lines.append(f"{len(self.rows)} arrays, names of {self.dialect}")
        if self.unwrapped:
            lines.append(f"taken off: {', '.join(self.unwrapped)}")
        if self.counters:
            lines.append(f"{len(self.counters)} batch counters have no counterpart")
        if self.unused:
            lines.append(f"outside the part asked for: {_some(self.unused)}")
        return "\n".join(lines)


def read(file: str | Path) -> StateDict:
    """The state dict in a file: `.safetensors`, or whatever `torch.save` wrote.

    Files of `torch.save` are read with weights only: a pickle that would run code is refused, and
    nothing of it is executed. A state dict that lies under 'net', 'state_dict', 'model' and the like
    is found there.

    Raises:
      UserError: no such file, truncated, not weights, or the package that reads it is missing.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} does not exist")
    loaded = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    return _arrays(loaded, file)


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged or no safetensors file: {_line(error)}") from error


def _read_torch(file: Path) -> Any:
    torch = _torch(file)
    try:
        # Scripts save the best accuracy beside the weights, often as a numpy number.
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "WeightsUnpickler" in str(error):
            raise UserError(
                f"{file} holds more than weights, which could run code when loaded, and was not "
                "loaded; save model.state_dict() in PyTorch and import that"
            ) from error
        raise UserError(f"{file} is damaged or no PyTorch file: {_line(error)}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged or no PyTorch file: {_line(error)}") from error


def _numpy_scalars() -> list:
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    return [
        np._core.multiarray.scalar,
        (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
    ]


def _torch(file: Path):
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{file} needs PyTorch: pip install 'kdjax[torch]', or use a .safetensors file"
        ) from error
    return torch


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_is_array, value.values()))


def _arrays(loaded: Any, file: Path) -> StateDict:
    """Finds the state dict in what was loaded."""
    if isinstance(loaded, Mapping) and not _is_state_dict(loaded):
        found = [loaded[key] for key in _NESTED if _is_state_dict(loaded.get(key))]
        loaded = found[0] if found else loaded
    if not _is_state_dict(loaded):
        keys = _some(list(map(str, loaded))) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise UserError(f"{file} holds no state dict, but: {keys}")
    return {str(name): _numpy(value) for name, value in loaded.items()}


def _numpy(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().cpu()
    if str(value.dtype) == "torch.bfloat16":
        value = value.float()
    return value.numpy()


def import_state_dict(
    module: nn.Module,
    state: Mapping[str, Any],
    *,
    part: str = "",
    image_shape: tuple[int, int, int] = (32, 32, 3),
) -> tuple[dict, Report]:
    """The variables of `module` from a state dict of its official PyTorch counterpart.

    Args:
      module: a network of `kdjax.models`, or a `Branched` or `Cohort` of them.
      state: arrays by name. A prefix that all names have in common ('module.') is taken off.
      part: only names that begin with this and a dot are used, without it: 'backbone' for the
        network inside one with auxiliary classifiers.
      image_shape: of the images that the network is for. Only the number of channels matters.

    Returns:
      `{'params': ..., 'batch_stats': ...}` in float32, and what was mapped.

    Raises:
      UserError: arrays that are missing, left over or of another shape (the message lists them), or
        a network that has no counterpart.
    """
    state, unwrapped = _unwrapped({name: np.asarray(value) for name, value in state.items()})
    state, unused = _part(state, part)
    expected = traverse_util.flatten_dict(mapping.shapes(module, image_shape))
    dialect, entries = _best_dialect(module, expected, state)
    counters = {name: state[name] for name in mapping.counters(entries) if name in state}
    _check(module, entries, expected, {n: v for n, v in state.items() if n not in counters})
    values = {
        entry.path: np.ascontiguousarray(entry.from_torch(state[entry.name]), np.float32)
        for entry in entries
    }
    rows = [(e.name, state[e.name].shape, "/".join(e.path)) for e in entries]
    return traverse_util.unflatten_dict(values), Report(
        dialect, rows, unwrapped, unused, counters
    )


def _unwrapped(state: StateDict) -> tuple[StateDict, list[str]]:
    taken = []
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        taken.append(prefix)
    return state, taken


def _part(state: StateDict, part: str) -> tuple[StateDict, list[str]]:
    if not part:
        return state, []
    prefix = f"{part}."
    used = {name: value for name, value in state.items() if name.startswith(prefix)}
    if not used:
        raise UserError(f"no array is named {prefix}...; there are {_some(list(state))}")
    unused = [name for name in state if name not in used]
    return {name.removeprefix(prefix): value for name, value in used.items()}, unused


def _best_dialect(module: nn.Module, expected: dict, state: StateDict):
    """The dialect that explains most names of the state dict, and the entries in it."""
    variables = traverse_util.unflatten_dict(expected)
    found = {
        dialect: mapping.entries(naming, variables)
        for dialect, naming in mapping.namings(module).items()
    }
    dialect = max(found, key=lambda name: sum(entry.name in state for entry in found[name]))
    return dialect, found[dialect]


def _check(module: nn.Module, entries: list, expected: dict, state: StateDict) -> None:
    """Raises `UserError` unless the state dict has exactly the arrays that are expected."""
    names = {entry.name for entry in entries}
    missing = [entry.name for entry in entries if entry.name not in state]
    left = [name for name in state if name not in names]
    wrong = []
    for entry in entries:
        if entry.name in state:
            shape, want = entry.from_torch(state[entry.name]).shape, expected[entry.path].shape
            if shape != want:
                want = entry.to_torch(np.broadcast_to(0, want)).shape
                wrong.append(f"{entry.name} {_shape(state[entry.name].shape)} not {_shape(want)}")
    problems = [
        f"{kind}: {_some(items)}"
        for kind, items in (("missing", missing), ("left over", left), ("shape", wrong))
        if items
    ]
    if problems:
        hint = ""
        if any(name.startswith("backbone.") for name in left):
            hint = "; the network inside one with auxiliary classifiers is part 'backbone'"
        raise UserError(f"not a state dict of this network: {'; '.join(problems)}{hint}")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _some(items: list[str]) -> str:
    """All items, or the first few and how many more there are."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def export_state_dict(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    dialect: str | None = None,
    counters: Mapping[str, np.ndarray] | None = None,
) -> StateDict:
    """The state dict with which the official PyTorch counterpart of `module` computes the same.

    Args:
      module: as of `import_state_dict`.
      variables: its variables.
      dialect: whose names to use; None is the network's own repository's.
      counters: values of BatchNorm's batch counters, by name; 0 for those that are not given.

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
    return state


def write(file: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict: `.safetensors`, or else a file for `torch.load`.

    Raises:
      UserError: the file cannot be written, or torch is missing.
    """
    file = Path(file)
    try:
        if file.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(dict(state), file)
        else:
            torch = _torch(file)
            torch.save({name: torch.from_numpy(value.copy()) for name, value in state.items()}, file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from error
