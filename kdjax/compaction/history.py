"""Which filters are left of a run's networks, where some were taken out before or in training.

The workdir's `shrunk.json` says so from a step on; a checkpoint has the shapes of the last such
step up to its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from kdjax.errors import UserError
from kdjax.models import Compaction
from kdjax.runs.metrics import write_atomically

_FILE = "shrunk.json"

# By the networks' names, 'network_i'.
Compactions = dict[str, Compaction]


def read(workdir: Path, step: int) -> Compactions:
    """What was left of the networks of a run at a step; nothing, if they were whole.

    Raises:
      UserError: the file is damaged.
    """
    known = [row["networks"] for row in _read(workdir) if row["step"] <= step]
    return {name: Compaction.from_dict(each) for name, each in known[-1].items()} if known else {}


def write(workdir: Path, step: int, compactions: Mapping[str, Compaction]) -> None:
    """Writes down what is left from a step on."""
    rows = [row for row in _read(workdir) if row["step"] < step]
    rows.append({"step": step, "networks": {n: c.as_dict() for n, c in compactions.items()}})
    _write(workdir, rows)


def forget(workdir: Path, step: int) -> None:
    """Drops what was written of steps after `step`, from which training goes on; -1 for all of it.

    A process that was killed before its checkpoint was whole has left it, and the same steps are
    now taken again; or a run of another config, that never saved anything.
    """
    rows = _read(workdir)
    left = [row for row in rows if row["step"] <= step]
    if left != rows:
        _write(workdir, left)


def _write(workdir: Path, rows: list[dict[str, Any]]) -> None:
    if jax.process_index() == 0:
        write_atomically(workdir / _FILE, json.dumps(rows, indent=1) + "\n")


def _read(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / _FILE
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); the run cannot go on without it") from error
