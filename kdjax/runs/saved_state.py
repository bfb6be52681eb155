"""The content of a checkpoint: arrays, metrics and metadata, verified by checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import args as ocp_args

from kdjax import tree as trees
from kdjax.errors import UserError
from kdjax.runs import schema
from kdjax.runs.schema import Damaged

FORMAT = 2  # of checkpoints; format 1 had no checksums
ITEMS = ("metrics", "metadata")  # besides 'state'

_DOCUMENT = {
    "format": schema.integer(0, 2**31),
    "arrays": schema.mapping(schema.text),
    "metrics": schema.text,
    "metadata": schema.mapping(lambda value: None),
    "checksum": schema.text,
}


class SavedState(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      step: the step of the checkpoint.
      tree: the state, as nested dicts of numpy arrays.
      metrics: the metrics that it was saved with.
      metadata: the metadata that it was saved with.
      path: the path of the checkpoint, for error messages.
    """

    step: int
    tree: dict[str, Any]
    metrics: dict[str, float]
    metadata: dict[str, Any]
    path: Path

    def fitted(self, like: Any) -> Any:
        """The arrays in the structure of `like`, whose leaves have `shape` and `dtype`.

        Raises:
          UserError: the checkpoint has other arrays.
        """
        arrays, expected = trees.leaves(self.tree), trees.leaves(like)
        faults = [f"{name} is missing" for name in expected if name not in arrays]
        faults += [f"{name} is unknown" for name in arrays if name not in expected]
        for name, leaf in expected.items():
            if name in arrays and _form(arrays[name]) != _form(leaf):
                faults.append(f"{name} is {_form(arrays[name])}, not {_form(leaf)}")
        if faults:
            raise UserError(f"checkpoint {self.path} is of another network: {faults[0]}")
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])


def document(state: Any, metrics: dict[str, float], metadata: dict[str, Any]) -> dict[str, Any]:
    """The item 'metadata' of a checkpoint: metadata and checksums.

    Raises:
      UserError: an array or a metric is not finite.
    """
    arrays = trees.leaves(state)
    bad = [name for name, array in arrays.items() if not is_finite(array)]
    bad += [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise UserError(f"not finite, and not saved: {', '.join(bad[:4])}")
    metadata = json.loads(json.dumps(metadata, allow_nan=False))
    content = {
        "format": FORMAT,
        "arrays": {name: _array_checksum(array) for name, array in arrays.items()},
        "metrics": _json_checksum(metrics),
        "metadata": metadata,
    }
    return sealed(content)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A document with a checksum of its other fields added, or replaced."""
    unsealed = {name: value for name, value in content.items() if name != "checksum"}
    return unsealed | {"checksum": _json_checksum(unsealed)}


def is_finite(array: Any) -> bool:
    """Whether an array of any dtype is free of infinities and NaNs."""
    array = np.asarray(array)
    if not jax.numpy.issubdtype(array.dtype, np.inexact):
        return True
    return bool(np.isfinite(array).all())


def read_documents(path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Reads the items 'metadata' and 'metrics' of a checkpoint.

    Raises:
      Damaged: an item is missing, or differs from its checksum.
      UserError: the checkpoint has another format.
    """
    stored = schema.checked(_read_item(path, "metadata"), _DOCUMENT)
    if sealed(stored) != stored:
        raise Damaged("metadata/metadata is not what was saved")
    if stored["format"] != FORMAT:
        raise UserError(
            f"checkpoint {path} is of format {stored['format']}, of another kdjax; this one reads "
            f"format {FORMAT}"
        )
    metrics = _read_item(path, "metrics")
    if _json_checksum(metrics) != stored["metrics"]:
        raise Damaged("metrics/metrics is not what was saved")
    return stored, metrics


def read(checkpointer: ocp.Checkpointer, path: Path) -> SavedState:
    """Reads a checkpoint and verifies its checksums.

    Raises:
      Damaged: an array or an item is missing, or differs from its checksum.
      UserError: the checkpoint has another format.
    """
    stored, metrics = read_documents(path)
    args = ocp_args.Composite(state=ocp_args.StandardRestore(fallback_sharding=None))
    try:
        tree = checkpointer.restore(path, args=args).state
    except Exception as error:  # readers of damaged files raise various errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Damaged(lines[0]) from error
    arrays = trees.leaves(tree)
    checksums = stored["arrays"]
    for name in sorted(checksums.keys() | arrays.keys()):
        if name not in arrays:
            raise Damaged(f"{name} is missing")
        if name not in checksums or _array_checksum(arrays[name]) != checksums[name]:
            raise Damaged(f"{name} is not what was saved")
    return SavedState(int(path.name), tree, metrics, stored["metadata"], path)


def _read_item(path: Path, name: str) -> Any:
    try:
        return schema.read_json(path / name / name)
    except Damaged as error:
        raise Damaged(f"{name}/{name}: {error}") from error


def _form(array: Any) -> str:
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _array_checksum(array: Any) -> str:
    array = np.asarray(array)
    digest = hashlib.blake2b(_form(array).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _json_checksum(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
