"""The content of one checkpoint: arrays, metrics and metadata, with the checksums over them."""

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

FORMAT = 2  # of checkpoints; those of the first had no checksums
ITEMS = ("metrics", "metadata")  # besides 'state'

_DOCUMENT = {
    "format": schema.integer(0, 2**31),
    "arrays": schema.mapping(schema.text),
    "metrics": schema.text,
    "metadata": schema.mapping(lambda value: None),
    "checksum": schema.text,
}


class SavedState(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      step: its number.
      tree: nested dicts of numpy arrays.
      metrics: what it was saved with.
      metadata: what it was saved with.
      path: of the checkpoint, for messages.
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
    made = {
        "format": FORMAT,
        "arrays": {name: _array_checksum(array) for name, array in arrays.items()},
        "metrics": _json_checksum(metrics),
        "metadata": metadata,
    }
    return sealed(made)


def sealed(made: dict[str, Any]) -> dict[str, Any]:
    """A document with the checksum over itself, in place of one that it has."""
    rest = {name: value for name, value in made.items() if name != "checksum"}
    return rest | {"checksum": _json_checksum(rest)}


def is_finite(array: Any) -> bool:
    """Whether an array, of any dtype, has neither infinity nor NaN."""
    array = np.asarray(array)
    if not jax.numpy.issubdtype(array.dtype, np.inexact):
        return True
    return bool(np.isfinite(array).all())


def read_documents(path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The items 'metadata' and 'metrics' of the checkpoint in a directory.

    Raises:
      Damaged: they are missing, or not what was saved.
      UserError: it is of another format.
    """
    found = schema.checked(_read_item(path, "metadata"), _DOCUMENT)
    if sealed(found) != found:
        raise Damaged("metadata/metadata is not what was saved")
    if found["format"] != FORMAT:
        raise UserError(
            f"checkpoint {path} is of format {found['format']}, of another kdjax; this one reads "
            f"format {FORMAT}"
        )
    metrics = _read_item(path, "metrics")
    if _json_checksum(metrics) != found["metrics"]:
        raise Damaged("metrics/metrics is not what was saved")
    return found, metrics


def read(checkpointer: ocp.Checkpointer, path: Path) -> SavedState:
    """Reads a checkpoint and compares it with its checksums.

    Raises:
      Damaged: it is not what was saved.
      UserError: it is of another format.
    """
    found, metrics = read_documents(path)
    args = ocp_args.Composite(state=ocp_args.StandardRestore(fallback_sharding=None))
    try:
        tree = checkpointer.restore(path, args=args).state
    except Exception as error:  # whatever a damaged file makes of its reader
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Damaged(lines[0]) from error
    arrays = trees.leaves(tree)
    checksums = found["arrays"]
    for name in sorted(checksums.keys() | arrays.keys()):
        if name not in arrays:
            raise Damaged(f"{name} is missing")
        if name not in checksums or _array_checksum(arrays[name]) != checksums[name]:
            raise Damaged(f"{name} is not what was saved")
    return SavedState(int(path.name), tree, metrics, found["metadata"], path)


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
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _json_checksum(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
