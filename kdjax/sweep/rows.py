"""The evaluated rows of runs, and the CSV files that hold them.

One line for every epoch of a run that was evaluated: the run's label and seed, the hash of its
config, the machine and the versions, then the metrics. An empty field is not known.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from kdjax import config as configs
from kdjax.runs import metrics
from kdjax.runs.files import write_atomically

FILE = "rows.csv"
VERSIONS = ("kdjax", "python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
KEYS = ("label", "seed", "config_hash", "cpu", "cores", "device", "devices", *VERSIONS)
_FIRST = (*KEYS, "epoch", "step")
# Where data and checkpoints lie is not part of what was computed.
_PLACES = ("data.dir", "teacher.checkpoint", "start.checkpoint")

Row = dict[str, str]


def config_hash(config: dict[str, Any]) -> str:
    """16 hexadecimal digits of a config as `config.json` holds it.

    They are of the settings that differ from the defaults, so that a setting which kdjax gets later
    changes no hash; directories of data and checkpoints are left out.
    """
    defaults, config = _flat(configs.plain(configs.base())), _flat(config)
    kind, _, path = config["data.source"].partition(":")
    config["data.source"] = f"{kind}:{PurePath(path).name}" if path else kind
    kept = {
        name: value
        for name, value in config.items()
        if name not in _PLACES and (name not in defaults or value != defaults[name])
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        more = (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
        found |= more
    return found


def read(results: Path) -> list[Row]:
    """All rows of a directory, in the file's order; none where there is no file."""
    file = results / FILE
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write(results: Path, rows: Sequence[Row]) -> None:
    """Writes the file, with the columns that some row has."""
    write_atomically(results / FILE, text(rows))


def text(rows: Sequence[Row], first: Sequence[str] = _FIRST) -> str:
    """The CSV of rows: the columns `first`, then the others that some row has, sorted."""
    columns = [*first, *sorted({name for row in rows for name in row} - set(first))]
    lines = [",".join(columns)]
    lines += [",".join(_field(row.get(name, "")) for name in columns) for row in rows]
    return "\n".join(lines) + "\n"


def _field(value: str | None) -> str:
    text = "" if value is None else str(value)
    if any(character in text for character in ',"\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text


def of_workdir(
    workdir: Path, label: str, seed: int, tested: Mapping[str, float] | None = None
) -> list[Row]:
    """The evaluated rows of a finished run.

    Args:
      workdir: of the run.
      label, seed: of the run.
      tested: metrics of `kdjax.evaluate`, which the row of their step gets as 'test/NAME'.
    """
    versions = json.loads((workdir / "versions.json").read_text())
    about = {
        "label": label,
        "seed": str(seed),
        "config_hash": config_hash(json.loads((workdir / "config.json").read_text())),
        "cpu": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        **{name: versions.get(name) for name in ("device", "devices", *VERSIONS)},
    }
    rows = evaluated(metrics.read(workdir / "metrics.jsonl"), about)
    if tested:
        (row,) = (row for row in rows if row["step"] == str(tested["step"]))
        row |= {
            f"test/{name}": str(value)
            for name, value in tested.items()
            if name not in ("step", "epoch")
        }
    return rows


def evaluated(log: Sequence[dict[str, Any]], about: Row) -> list[Row]:
    """Those of a log's rows that have an evaluation, as rows of a run that is described so."""
    return [
        about | {name: str(value) for name, value in row.items()}
        for row in log
        if any(name.startswith("mean/") for name in row)
    ]


def of_run(rows: Sequence[Row], label: str, seed: int) -> list[Row]:
    """The rows of one run, in order."""
    return [row for row in rows if (row["label"], row["seed"]) == (label, str(seed))]


def of_label(rows: Sequence[Row], label: str) -> list[list[dict[str, float]]]:
    """The metrics of every seed's rows: those that are numbers, by name."""
    seeds = sorted({int(row["seed"]) for row in rows if row["label"] == label})
    return [[_numbers(row) for row in of_run(rows, label, seed)] for seed in seeds]


def _numbers(row: Row) -> dict[str, float]:
    return {name: float(x) for name, x in row.items() if name not in KEYS and x not in ("", None)}
