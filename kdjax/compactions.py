"""Which filters are left of a run's networks, where some were taken out while it trained.

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
from kdjax.metrics import write_atomically
from kdjax.models import Compaction

_FILE = "shrunk.json"

# By the networks' names, 'network_i'.
Compactions = dict[str, Compaction]


def read(workdir: Path, step: int) -> Compactions:
    """What was left of the networks of a run at a step; nothing, if they were whole.

    Raises:
      UserError: the file is damaged.
    """
    return _after(_read(workdir), step)


def write(workdir: Path, step: int, compactions: Mapping[str, Compaction]) -> None:
    """Writes down what is left from a step on; what an earlier try said of later ones goes."""
    if jax.process_index() != 0:
        return
    rows = [row for row in _read(workdir) if row["step"] < step]
    rows.append({"step": step, "networks": {n: c.as_dict() for n, c in compactions.items()}})
    write_atomically(workdir / _FILE, json.dumps(rows, indent=1) + "\n")


def _read(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / _FILE
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); the run cannot go on without it") from error


def _after(rows: list[dict[str, Any]], step: int) -> Compactions:
    known = [row["networks"] for row in rows if row["step"] <= step]
    return {name: Compaction.from_dict(each) for name, each in known[-1].items()} if known else {}
