"""Kills a run with SIGKILL again and again, and compares what it becomes with a run left alone.

    python -m experiments.kill_resume --workdir runs/kill_resume

Every other kill falls into the writing of a checkpoint, the others into the middle of an epoch.
Prints a table; the exit status is 0 if parameters, statistics and optimizer state are bit-identical
and every epoch stands in metrics.jsonl once, with the same values. Takes a few minutes on a laptop.
"""

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from kdjax.networks import metadata
from kdjax.runs import metrics
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from kdjax.training.program import build

COMMAND = (
    *(sys.executable, "-m", "kdjax.main", "--config=configs/mcl.py:digits"),
    *("--config.epochs=14", "--config.data.train_fraction=0.25", "--config.steps_per_dispatch=1"),
)
KILLS = 10
_POLL_SECONDS = 0.0005


class Kill(NamedTuple):
    """One kill, as a row of the table.

    Attributes:
      moment: where it was aimed at.
      resumes_from: step of the last finished checkpoint.
      cut: whether it left a checkpoint half-written.
    """

    moment: str
    resumes_from: int
    cut: bool


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="directory of the two runs")
    parser.add_argument("--kills", type=int, default=KILLS)
    arguments = parser.parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns that it will not write
    alone, killed = arguments.workdir / "alone", arguments.workdir / "killed"
    run(COMMAND, alone)
    kills = kill_and_resume(COMMAND, killed, arguments.kills, epoch_seconds(alone))
    print("| kill | aimed at | resumes from step | checkpoint left half-written |")
    print("|---|---|---|---|")
    for number, each in enumerate(kills, start=1):
        print(f"| {number} | {each.moment} | {each.resumes_from} | {'yes' if each.cut else 'no'} |")
    found = differences(alone, killed)
    print(
        f"\n{len(kills)} kills; different from the run left alone: {', '.join(found) or 'nothing'}"
    )
    return 1 if found else 0


def run(command: Sequence[str], workdir: Path) -> None:
    """Runs to the end."""
    subprocess.run([*command, f"--workdir={workdir}"], check=True, stdout=subprocess.DEVNULL)


def kill_and_resume(
    command: Sequence[str], workdir: Path, count: int, epoch_seconds: float
) -> list[Kill]:
    """Starts the command `count` times, killing it each time, and once more to the end."""
    kills = []
    for number in range(count):
        part = None if number % 2 else (number + 1) / (count + 1)
        kills.append(_start_and_kill(command, workdir, part, epoch_seconds))
    run(command, workdir)
    return kills


def _start_and_kill(command, workdir: Path, part: float | None, epoch_seconds: float) -> Kill:
    """Kills at `part` of an epoch, or in the writing of a checkpoint if `part` is None."""
    checkpoints = workdir / "checkpoints"
    before = latest(checkpoints)
    with subprocess.Popen([*command, f"--workdir={workdir}"], stdout=subprocess.DEVNULL) as process:
        # One epoch more each time, so that the run gets on.
        _wait(process, lambda: latest(checkpoints) > before)
        if part is None:
            _wait(process, lambda: unfinished(checkpoints))
        else:
            time.sleep(part * epoch_seconds)
        process.kill()
    moment = "writing" if part is None else f"{100 * part:.0f} % of an epoch"
    return Kill(moment, latest(checkpoints), unfinished(checkpoints))


def _wait(process: subprocess.Popen, happened) -> None:
    while not happened():
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before it was killed: status {process.returncode}")
        time.sleep(_POLL_SECONDS)


def _names(checkpoints: Path) -> list[str]:
    return os.listdir(checkpoints) if checkpoints.is_dir() else []


def latest(checkpoints: Path) -> int:
    """Step of the newest finished checkpoint, or 0."""
    return max((int(name) for name in _names(checkpoints) if name.isdigit()), default=0)


def unfinished(checkpoints: Path) -> bool:
    """Whether a checkpoint is half-written."""
    return any(not name.isdigit() for name in _names(checkpoints))


def epoch_seconds(workdir: Path) -> float:
    """Time that the last epoch's training took."""
    *_, before, last = [{"step": 0}, *metrics.read(workdir / "metrics.jsonl")]
    images = (last["step"] - before["step"]) * workdirs.read_config(workdir).batch_size
    return images / last["images_per_second"]


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs of the same config differ in; nothing if they are bit-identical."""
    rows = [
        [{k: v for k, v in row.items() if k != "images_per_second"} for row in each]
        for each in (metrics.read(path / "metrics.jsonl") for path in (one, other))
    ]
    found = [] if rows[0] == rows[1] else ["metrics.jsonl"]
    pairs = zip(_leaves(one), _leaves(other), strict=True)
    return found + [name for (name, a), (_, b) in pairs if not _same_bits(a, b)]


def _leaves(workdir: Path) -> list[tuple[str, np.ndarray]]:
    config = workdirs.read_config(workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.best, read_only=True)
    left = metadata.compactions_of(checkpoints.metadata(checkpoints.step("latest")))
    _, state = checkpoints.restore(build(config, compactions=left).abstract_state())
    checkpoints.close()
    named = jax.tree.leaves_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in named]


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
