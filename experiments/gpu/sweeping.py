"""An experiment of `experiments.sweep` on the card, several runs at a time, while time is left.

Small networks leave a card idle, so several processes share it. Each is `python -m
experiments.sweep`; they agree on who runs what by the claims in the folder of the workdirs. At the
end of the time SIGTERM makes every run save a checkpoint. Rows of what is finished come back as a
CSV file, for `experiments/results`; workdirs that a later command needs, as archives: unfinished
runs, and those that others start from or learn from.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from experiments import sweep
from experiments.gpu.training import ENVIRONMENT
from kdjax.sweep import rows

DATA = "cifar100"  # the name of the files that the pieces are joined to, in the flags' {data}


def command(experiment: str, only: str | None, scratch: Path, extra: list[str]) -> list[str]:
    """The command line of each of the processes."""
    return [
        *(sys.executable, "-m", "experiments.sweep", experiment, f"--runs={runs_of(scratch)}"),
        f"--results={scratch / 'results'}",
        *([f"--only={only}"] if only else []),
        f"--data={data_of(scratch)}",
        *extra,
    ]


def runs_of(scratch: Path) -> Path:
    """The folder of the workdirs."""
    return scratch / "sweep"


def data_of(scratch: Path) -> Path:
    """The folder of the data."""
    return scratch / "data"


def run(
    experiment: str,
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
      The exit statuses, the labels and seeds that have rows, and the ends of outputs of processes
      that failed.
    """
    runs_of(scratch).mkdir(parents=True, exist_ok=True)
    name = experiment.rpartition(".")[2]
    results = scratch / "results" / name
    results.mkdir(parents=True, exist_ok=True)
    rows.write(results, rows.read(sweep.RESULTS / name))  # what has rows is not run again
    logs = [scratch / f"sweep_{number}.log" for number in range(jobs)]
    line = command(experiment, only, scratch, extra)
    processes = []
    for log in logs:
        with log.open("w") as stream:
            processes.append(
                subprocess.Popen(line, env=ENVIRONMENT, stdout=stream, stderr=subprocess.STDOUT)
            )
    try:
        while time.monotonic() < deadline and any(p.poll() is None for p in processes):
            time.sleep(0.2)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    statuses = [process.wait() for process in processes]
    shutil.copy(results / rows.FILE, output / f"{results.name}_{rows.FILE}")
    done = sorted({(row["label"], int(row["seed"])) for row in rows.read(results)})
    failed = [log for log, status in zip(logs, statuses, strict=True) if status == 1]
    return {
        "statuses": statuses,
        "done": [f"{label}_seed{seed}" for label, seed in done],
        "outputs": [log.read_text()[-2000:] for log in failed],
    }


def to_keep(experiment: str, scratch: Path, done: list[str], labels: list[str]) -> list[Path]:
    """Workdirs that a later command needs: unfinished ones, of `labels`, and what flags name."""
    module = importlib.import_module(experiment)
    flags = [flag for flags in module.RUNS.values() for flag in flags]
    named = {label for label in module.RUNS for flag in flags if f"{{runs}}/{label}_seed" in flag}
    folders = sorted(path.parent for path in runs_of(scratch).glob("*/config.json"))
    return [
        folder
        for folder in folders
        if folder.name not in done or folder.name.rpartition("_seed")[0] in named | set(labels)
    ]


def table(found: dict) -> list[str]:
    """What is done, as lines of Markdown, and the ends of outputs of what failed."""
    lines = [f"{len(found['done'])} runs have rows: {', '.join(found['done']) or 'none'}.", ""]
    for text in found["outputs"]:
        lines += ["FAILED", "", *text.splitlines(), ""]
    return lines
