"""The arrays of kdjax's variables and of PyTorch's state dicts: names and layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

# Module path -> PyTorch module name.
Naming = Callable[[str], str]

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "bias"): "bias",
    ("params", "scale"): "weight",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
COUNTER = "num_batches_tracked"
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}  # HWIO -> OIHW, in x out -> out x in
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}


class Entry(NamedTuple):
    """One array: its place in kdjax's variables and in a PyTorch state dict."""

    path: tuple[str, ...]  # collection, modules, leaf
    name: str

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        """From kdjax's layout to PyTorch's."""
        return value.transpose(_TO_TORCH[value.ndim]) if self.path[-1] == "kernel" else value

    def from_torch(self, value: np.ndarray) -> np.ndarray:
        """From PyTorch's layout to kdjax's. Arrays of another rank are left as they are."""
        axes = _FROM_TORCH.get(value.ndim) if self.path[-1] == "kernel" else None
        return value if axes is None else value.transpose(axes)


def entries(naming: Naming, variables: Mapping[str, Any]) -> list[Entry]:
    """Every array of `variables` with its PyTorch name."""
    result = []
    for path in traverse_util.flatten_dict(variables):
        collection, *modules, leaf = path
        suffix = _LEAVES.get((collection, leaf))
        if suffix is None:
            name = naming("/".join([*modules, leaf]))
        else:
            name = f"{naming('/'.join(modules))}.{suffix}"
        result.append(Entry(path, name))
    return result


def counters(arrays: list[Entry]) -> list[str]:
    """The names of the batch counters that PyTorch's BatchNorm keeps, one for every layer."""
    suffix = ".running_mean"
    names = (entry.name for entry in arrays if entry.name.endswith(suffix))
    return [f"{name.removesuffix(suffix)}.{COUNTER}" for name in names]
