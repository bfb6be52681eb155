"""One process of a sweep: it claims runs, trains them one after the other, and keeps their rows.

The folder of a sweep holds the workdirs, `claims/` (see `kdjax.sweep.claims`), `finished/NAME.json`
with the row of every finished run, and what is made of these: `rows.csv` and `table.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kdjax import config as config_room
from kdjax.cli.command_line import parse
from kdjax.errors import UserError
from kdjax.runs import files, signals
from kdjax.runs.console import print_line
from kdjax.sweep import claims, rows, table
from kdjax.sweep.claims import Claim
from kdjax.sweep.grid import Run

COMMAND = (sys.executable, "-m", "kdjax.main")
_POLL = 0.5  # seconds


class Outcome(NamedTuple):
    """What a process leaves undone: runs that failed with their exit status, runs of others."""

    failed: dict[str, int]
    elsewhere: dict[str, str]


def hashes(runs: Sequence[Run]) -> dict[str, str]:
    """The config hash of every run, by name; checks the configs before anything is trained.

    Raises:
      UserError: a flag, setting or value is bad, or the config is not one of training.
    """
    hashes = {}
    for run in runs:
        config = parse(["kdjax", *run.flags, "--workdir=unused"]).config
        if config.get("job", "train") != "train":
            raise UserError(f"{run.name}: sweeps train, and this config is for --job={config.job}")
        config_room.validate(config)
        hashes[run.name] = rows.config_hash(config_room.plain(config))
    return hashes


def check_finished(folder: Path, wanted: dict[str, str]) -> int:
    """The number of finished runs.

    Raises:
      UserError: one of them had another config.
    """
    finished = read(folder)
    for name, row in finished.items():
        if name in wanted and row["config_hash"] != wanted[name]:
            raise UserError(
                f"--runs={folder}: {name} is finished with config {row['config_hash']}, this "
                f"command's is {wanted[name]}; use another --runs"
            )
    return len(finished.keys() & wanted.keys())


def work(
    runs: Sequence[Run],
    folder: Path,
    *,
    stale_after: float = claims.STALE_AFTER,
    command: Sequence[str] = COMMAND,
) -> Outcome:
    """Trains all runs that are neither finished nor claimed by another process.

    Args:
      runs: in the order of training.
      folder: that of the sweep.
      stale_after: see `claims.take`.
      command: that of a run, to which its flags are added.

    Raises:
      UserError: the folder cannot be written to.
    """
    failed: dict[str, int] = {}
    while (taken := _next(runs, folder, failed, stale_after)) is not None:
        run, claim = taken
        with claims.kept(claim, stale_after=stale_after):
            if _finished(folder, run.name).exists():  # in the time before it was claimed
                continue
            print_line(f"sweep: {run.name}")
            status = train([*run.flags, f"--workdir={folder / run.name}"], claim, command)
            if status == 0 and not claim.lost.is_set():
                keep(folder, run)
        if claim.lost.is_set():
            print_line(f"sweep: {run.name} was taken over by another process")
        elif status:
            failed[run.name] = status
            print_line(f"sweep: {run.name} failed with status {status}; the sweep goes on")
    undone = [run.name for run in runs if not _finished(folder, run.name).exists()]
    others = {name: claims.holder(folder / "claims", name) for name in undone if name not in failed}
    return Outcome(failed, others)


def train(flags: Sequence[str], claim: Claim, command: Sequence[str] = COMMAND) -> int:
    """Trains one run by its flags; returns its exit status.

    It is in a process group of its own; a signal that ends this process is passed on to it, and it
    is ended when the claim is lost.

    Raises:
      Stopped: a signal ends this process.
    """
    process = subprocess.Popen([*command, *flags], start_new_session=True)
    try:
        while True:
            try:
                return process.wait(timeout=_POLL)
            except subprocess.TimeoutExpired:
                if claim.lost.is_set():
                    process.terminate()
                    return process.wait()
    except signals.Stopped as error:
        process.send_signal(error.number)
        process.wait()
        raise


def keep(folder: Path, run: Run) -> None:
    """Keeps the row of a run that has ended.

    Raises:
      UserError: the folder cannot be written to, or the run has no evaluation.
    """
    workdir = folder / run.name
    evaluated = rows.of_workdir(workdir, run.label, run.seed)
    if not evaluated:
        raise UserError(f"{workdir} has no evaluated epoch in metrics.jsonl")
    settings = json.loads((workdir / "config.json").read_text())
    metric = settings["evaluation"]["best"]
    best = max(evaluated, key=lambda row: float(row.get(metric, "-inf")))
    row = {"run": run.name, **run.values, **evaluated[-1], "metric": metric}
    row |= {"best/epoch": best["epoch"], f"best/{metric}": best.get(metric, "")}
    _replace(_finished(folder, run.name), json.dumps(row, indent=2) + "\n")
    publish(folder)


def read(folder: Path) -> dict[str, rows.Row]:
    """The rows of finished runs, by name.

    Raises:
      UserError: a file of them is damaged.
    """
    rows_by_run = {}
    for path in sorted((folder / "finished").glob("*.json")):
        try:
            rows_by_run[path.stem] = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} is damaged; remove it, and the run is done again") from error
    return rows_by_run


def publish(folder: Path) -> None:
    """Writes `rows.csv` and `table.md` of all finished runs.

    Several processes may do so at a time: what the last one writes has all rows.

    Raises:
      UserError: the folder cannot be written to.
    """
    known = None
    while known != (finished := read(folder)):  # another run may have ended meanwhile
        known = finished
        kept = list(finished.values())
        _replace(folder / rows.FILE, rows.text(kept, table.columns(kept)))
        _replace(folder / table.FILE, table.markdown(kept))


def _next(
    runs: Sequence[Run], folder: Path, failed: dict[str, int], stale_after: float
) -> tuple[Run, Claim] | None:
    """The next run that could be claimed."""
    for run in runs:
        if run.name in failed or _finished(folder, run.name).exists():
            continue
        claim = claims.take(folder / "claims", run.name, stale_after=stale_after)
        if claim is not None:
            return run, claim
    return None


def _finished(folder: Path, name: str) -> Path:
    return folder / "finished" / f"{name}.json"


def _replace(path: Path, text: str) -> None:
    """Writes a file that several processes may write at the same time."""
    temporary = path.with_name(f".{path.name}_{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        raise files.cannot_write(path, error) from error
