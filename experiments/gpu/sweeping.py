"""Experiments of `experiments.sweep` on the card, several runs at a time, while time is left.

Small networks leave a card idle, so several processes share it. Each is `python -m
experiments.sweep`, one experiment after the other; they agree on who runs what by the claims in the
folder of the workdirs. At the end of the time SIGTERM makes every run save a checkpoint. Rows of
what is finished come back as results.tar.gz, for `experiments/results`; workdirs that a later
command needs, as archives: unfinished runs, and those that others start from or learn from.

Without CUDA's Multi-Process Service processes take turns on the card; start it first, by
`nvidia-cuda-mps-control -d`, for about twice the work (experiments/results/benchmark/h100).

Every process compiles on the host for itself. Under fifteen of them a machine of 16 cores and 128
GiB stopped answering, and nothing came back; why is not known.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import sweep
from experiments.gpu.training import ENVIRONMENT, STOPPED
from kdjax.sweep import rows

_MOST_FAILURES = 2  # of one process: what fails on a machine mostly fails for all runs
DATA = "cifar100"  # the name of the files that the pieces are joined to, in the flags' {data}


class Part(NamedTuple):
    """An experiment, or runs of it.

    Attributes:
      module: of the experiment.
      labels: of the runs; all of them when empty.
    """

    module: str
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last part of the module's name."""
        return self.module.rpartition(".")[2]


def parts_of(text: str) -> list[Part]:
    """The parts of `MODULE[:LABEL+LABEL...],MODULE...`.

    Raises:
      SystemExit: a label that the experiment does not have.
      ImportError: no such module.
    """
    parts = []
    for entry in filter(None, text.split(",")):
        module, _, labels = entry.partition(":")
        part = Part(module, tuple(filter(None, labels.split("+"))))
        runs = importlib.import_module(module).RUNS
        if unknown := sorted(set(part.labels) - set(runs)):
            raise SystemExit(f"{module} has no label {unknown}; it has {sorted(runs)}")
        parts.append(part)
    return parts


def command(part: Part, scratch: Path, extra: list[str]) -> list[str]:
    """The command line of each of the processes."""
    return [
        *(sys.executable, "-m", "experiments.sweep", part.module),
        f"--runs={runs_of(scratch) / part.name}",
        f"--results={results_of(scratch)}",
        *([f"--only={','.join(part.labels)}"] if part.labels else []),
        f"--data={data_of(scratch)}",
        f"--most-failures={_MOST_FAILURES}",
        *extra,
    ]


def runs_of(scratch: Path) -> Path:
    """The folder of the experiments' folders of workdirs."""
    return scratch / "sweep"


def results_of(scratch: Path) -> Path:
    """The folder of the experiments' rows."""
    return scratch / "results"


def data_of(scratch: Path) -> Path:
    """The folder of the data."""
    return scratch / "data"


class Slot(threading.Thread):
    """One process at a time, through all command lines, until it is stopped.

    Attributes:
      statuses: the exit statuses up to now.
    """

    def __init__(self, lines: Sequence[list[str]], log: Path):
        super().__init__(daemon=True)
        self.log = log
        self.statuses: list[int] = []
        self._lines = lines
        self._stopped = False
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        for line in self._lines:
            with self.log.open("a") as stream, self._lock:
                if self._stopped:
                    return
                self._process = subprocess.Popen(
                    line, env=ENVIRONMENT, stdout=stream, stderr=subprocess.STDOUT
                )
            self.statuses.append(self._process.wait())

    def stop(self) -> None:
        """Ends the process, which saves its run; none is started any more."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()


def run(
    parts: Sequence[Part],
    scratch: Path,
    output: Path,
    deadline: float,
    *,
    jobs: int,
    extra: list[str],
) -> dict:
    """Sweeps with `jobs` processes until all is done or the deadline is near.

    Returns:
      The exit statuses, the labels and seeds that have rows, by experiment, and the ends of outputs
      of processes that failed.
    """
    folders = {part.name: results_of(scratch) / part.name for part in parts}
    for name, folder in folders.items():
        (runs_of(scratch) / name).mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        # What has rows, here or from an earlier command on this machine, is not run again.
        known = rows.read(sweep.RESULTS / name)
        runs = {(row["label"], row["seed"]) for row in known}
        others = [row for row in rows.read(folder) if (row["label"], row["seed"]) not in runs]
        rows.write(folder, [*known, *others])
    lines = [command(part, scratch, extra) for part in parts]
    slots = [Slot(lines, scratch / f"sweep_{number}.log") for number in range(jobs)]
    for slot in slots:
        slot.log.unlink(missing_ok=True)
        slot.start()
    try:
        while time.monotonic() < deadline and any(slot.is_alive() for slot in slots):
            time.sleep(0.2)
    finally:
        for slot in slots:
            slot.stop()
    for slot in slots:
        slot.join()
    with tarfile.open(output / "results.tar.gz", "w:gz") as archive:
        archive.add(results_of(scratch), "results")
    done = {}
    for name, folder in folders.items():
        found = sorted({(row["label"], int(row["seed"])) for row in rows.read(folder)})
        done[name] = [f"{label}_seed{seed}" for label, seed in found]
    return {
        "statuses": [slot.statuses for slot in slots],
        "done": done,
        "outputs": [
            slot.log.read_text()[-2000:] for slot in slots if any(map(_failed, slot.statuses))
        ],
    }


def _failed(status: int) -> bool:
    """Whether a sweep ended by itself and not well: failed runs, bad flags, or killed."""
    return status not in (0, *STOPPED)


def to_keep(
    parts: Sequence[Part], wanted: Sequence[Part], scratch: Path, done: dict[str, list[str]]
) -> list[Path]:
    """Workdirs that a later command needs: unfinished ones, `wanted`, and what flags name."""
    kept = []
    for name, module in {part.name: part.module for part in parts}.items():
        runs = importlib.import_module(module).RUNS
        flags = [flag for flags in runs.values() for flag in flags]
        labels = {label for label in runs for flag in flags if f"{{runs}}/{label}_seed" in flag}
        for part in wanted:
            if part.module == module:
                labels.update(part.labels or runs)
        folders = sorted(path.parent for path in (runs_of(scratch) / name).glob("*/config.json"))
        kept += [
            folder
            for folder in folders
            if folder.name not in done[name] or folder.name.rpartition("_seed")[0] in labels
        ]
    return kept


def table(found: dict) -> list[str]:
    """What is done, as lines of Markdown, and the ends of outputs of what failed."""
    lines = []
    for name, done in found["done"].items():
        lines += [f"{name}: {len(done)} runs have rows: {', '.join(done) or 'none'}.", ""]
    for text in found["outputs"]:
        lines += ["FAILED", "", *text.splitlines(), ""]
    return lines
