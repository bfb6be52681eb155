"""Experiments of `experiments.sweep` on the card, several runs at a time, while time is left.

Small networks leave a card idle, so several processes share it. Each is `python -m
experiments.sweep`, one experiment after the other; they agree on who runs what by the claims in the
folder of the workdirs. At the end of the time SIGTERM makes every run save a checkpoint. Rows of
what is finished come back as CSV files, for `experiments/results`; workdirs that a later command
needs, as archives: unfinished runs, and those that others start from or learn from.

Every process compiles on the host for itself. Under fifteen of them a machine of 16 cores and 128
GiB stopped answering, and nothing came back; why is not known.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from experiments import sweep
from experiments.gpu.training import ENVIRONMENT
from kdjax.sweep import rows

DATA = "cifar100"  # the name of the files that the pieces are joined to, in the flags' {data}


def command(experiment: str, only: str | None, scratch: Path, extra: list[str]) -> list[str]:
    """The command line of each of the processes."""
    return [
        *(sys.executable, "-m", "experiments.sweep", experiment),
        f"--runs={runs_of(scratch) / name_of(experiment)}",
        f"--results={scratch / 'results'}",
        *([f"--only={only}"] if only else []),
        f"--data={data_of(scratch)}",
        *extra,
    ]


def name_of(experiment: str) -> str:
    """The last part of a module's name."""
    return experiment.rpartition(".")[2]


def runs_of(scratch: Path) -> Path:
    """The folder of the experiments' folders of workdirs."""
    return scratch / "sweep"


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
    experiments: Sequence[str],
    scratch: Path,
    output: Path,
    deadline: float,
    *,
    only: str | None,
    jobs: int,
    extra: list[str],
) -> dict:
    """Sweeps with `jobs` processes until all is done or the deadline is near.

    Returns:
      The exit statuses, the labels and seeds that have rows, by experiment, and the ends of outputs
      of processes that failed.
    """
    folders = {name_of(name): scratch / "results" / name_of(name) for name in experiments}
    for name, folder in folders.items():
        (runs_of(scratch) / name).mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        rows.write(folder, rows.read(sweep.RESULTS / name))  # what has rows is not run again
    lines = [command(name, only, scratch, extra) for name in experiments]
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
    done = {}
    for name, folder in folders.items():
        shutil.copy(folder / rows.FILE, output / f"{name}_{rows.FILE}")
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
    """Whether a sweep ended by itself and not well: a run that failed (1), or bad flags (2)."""
    return 0 < status < 128


def to_keep(experiment: str, scratch: Path, done: Sequence[str], labels: list[str]) -> list[Path]:
    """Workdirs that a later command needs: unfinished ones, of `labels`, and what flags name."""
    module = importlib.import_module(experiment)
    flags = [flag for flags in module.RUNS.values() for flag in flags]
    named = {label for label in module.RUNS for flag in flags if f"{{runs}}/{label}_seed" in flag}
    folders = (runs_of(scratch) / name_of(experiment)).glob("*/config.json")
    return [
        folder
        for folder in sorted(path.parent for path in folders)
        if folder.name not in done or folder.name.rpartition("_seed")[0] in named | set(labels)
    ]


def table(found: dict) -> list[str]:
    """What is done, as lines of Markdown, and the ends of outputs of what failed."""
    lines = []
    for name, done in found["done"].items():
        lines += [f"{name}: {len(done)} runs have rows: {', '.join(done) or 'none'}.", ""]
    for text in found["outputs"]:
        lines += ["FAILED", "", *text.splitlines(), ""]
    return lines
