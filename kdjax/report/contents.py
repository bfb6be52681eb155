"""What a report says of a run, read from its workdir."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import metrics as metric_files
from kdjax.runs import schema, workdir
from kdjax.runs.history import History

BATCH, CONFUSION = "batch.png", "confusion.json"


@dataclasses.dataclass(frozen=True)
class Reported:
    """A run as its report shows it.

    Attributes:
      name: the shortest end of its path that tells it from the others of the page.
      workdir: its directory.
      config: its settings.
      history: the metrics of its epochs, at least one.
      versions: of the packages, and the devices.
      batch: the picture of a batch as PNG, or None if there is none in the workdir.
      confusion: the contents of `confusion.json`, or None.
    """

    name: str
    workdir: Path
    config: ConfigDict
    history: History
    versions: dict[str, Any]
    batch: bytes | None
    confusion: dict[str, Any] | None

    @property
    def best(self) -> dict[str, float]:
        """The row of the epoch with the best metric, the last one of equals; the last without."""
        metric = self.config.evaluation.best
        rows = [row for row in self.history if metric in row]
        return max(reversed(rows), key=lambda row: row[metric]) if rows else self.last

    @property
    def last(self) -> dict[str, float]:
        """The row of the last epoch."""
        return self.history[-1]


def read(workdirs: Sequence[Path]) -> list[Reported]:
    """The runs in some workdirs.

    Raises:
      UserError: a workdir holds no run, a run has no epoch yet, or a file is damaged.
    """
    return [_read(path, name) for path, name in zip(workdirs, _names(workdirs), strict=True)]


def workdirs_of(directory: Path) -> list[Path]:
    """The workdirs that a directory stands for: itself, or those of a sweep's folder.

    Runs of a sweep that have no epoch yet are left out. A directory without any is returned as it
    is, for `read` to refuse.
    """
    if (directory / "config.json").is_file() or not directory.is_dir():
        return [directory]
    inside = [path for path in sorted(directory.iterdir()) if (path / "config.json").is_file()]
    return [path for path in inside if metric_files.last(path / "metrics.jsonl")] or [directory]


def _read(path: Path, name: str) -> Reported:
    config = workdir.read_config(path)
    history = History(metric_files.read(path / "metrics.jsonl"))
    if not len(history):
        raise UserError(f"--workdir={path}: the run has no epoch to report yet; train first")
    way_out = "remove it: --job=report makes it again"
    confusion, batch = path / CONFUSION, path / BATCH
    fields = {"matrix": schema.listing(_row), "class_names": schema.listing(schema.text)}
    return Reported(
        name,
        path,
        config,
        history,
        schema.read_object(path / "versions.json", {}, "restore it from a copy, or move it away"),
        batch.read_bytes() if batch.is_file() else None,
        schema.read_object(confusion, fields, way_out) if confusion.is_file() else None,
    )


def _row(value: Any) -> str | None:
    return schema.listing(schema.integer(0, 2**53))(value)


def _names(workdirs: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [path.absolute().parts[1:] or ("/",) for path in workdirs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return names


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone.

    Attributes:
      names: of the runs.
      best: of the metric in each run's best epoch.
      last: of it in each run's last epoch that has it.
    """

    names: tuple[str, ...]
    best: np.ndarray
    last: np.ndarray


def groups(runs: Sequence[Reported], metric: str) -> list[Group]:
    """The runs by their settings without the seed, in the order of their first runs.

    Args:
      runs: those of a page.
      metric: that all of them have.
    """
    found: dict[str, list[Reported]] = {}
    for run in runs:
        settings = configs.plain(run.config) | {"seed": None}
        found.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    return [
        Group(
            tuple(run.name for run in members),
            np.array([np.nanmax(run.history[metric]) for run in members]),
            np.array([_last(run.history[metric]) for run in members]),
        )
        for members in found.values()
    ]


def _last(column: np.ndarray) -> float:
    return float(column[~np.isnan(column)][-1])


def differing(runs: Sequence[Reported]) -> dict[str, list[str]]:
    """The settings that are not equal in all runs: each with its values, in the runs' order."""
    flat = [_flat(configs.plain(run.config)) for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    values = {name: [_shown(settings.get(name)) for settings in flat] for name in names}
    return {name: entries for name, entries in values.items() if len(set(entries)) > 1}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inside = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return flat


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
