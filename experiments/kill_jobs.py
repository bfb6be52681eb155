"""Kills in `--job=export` and `--job=compact`: scenes of `experiments.kill_resume`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.killing import FEW, MAIN, Kill, Outcome, end, latest, same_bits, wait
from kdjax.runs.checkpoints import Checkpoints, saved
from kdjax.tree import leaves

PRUNING = (*MAIN, "--config=configs/sfp.py:digits", "--config.epochs=2", *FEW)
# Signal, and the file whose writing it interrupts.
EXPORT_KILLS = (
    ("SIGKILL", "unfinished_network_0.stablehlo"),
    ("SIGTERM", "unfinished_network_0.onnx"),
    ("SIGHUP", "unfinished_network_0.safetensors"),
)
COMPACT_KILLS = (("SIGKILL", "checkpoints"), ("SIGTERM", "kdjax.json"), ("SIGINT", "checkpoints"))


def export_scene(workdir: Path) -> Outcome:
    """Kills in `--job=export`."""
    return _job_scene(workdir, "export", EXPORT_KILLS)


def compact_scene(workdir: Path) -> Outcome:
    """Kills in `--job=compact`."""
    return _job_scene(workdir, "compact", COMPACT_KILLS)


def _job_scene(workdir: Path, job: str, aims: Sequence[tuple[str, str]]) -> Outcome:
    trained, alone = workdir / "pruned", workdir / f"{job}_alone"
    if not latest(trained / "checkpoints"):
        subprocess.run([*PRUNING, f"--workdir={trained}"], check=True, stdout=subprocess.DEVNULL)
    command = (*MAIN, f"--job={job}", f"--workdir={trained}")
    _finish(command, alone)
    kills, different = [], []
    for name, file in aims:
        output = workdir / f"{job}_{name}"

        def moment(process, output=output, file=file):
            wait(process, lambda: (output / file).exists())

        faults = end([*command, f"--output={output}"], name, moment)
        left = sorted(path for path in output.iterdir()) if output.is_dir() else []
        unfinished = [path for path in left if path.name.startswith("unfinished_")]
        if name != "SIGKILL":
            faults += tuple(f"{path.name} is left" for path in unfinished)
        if job == "export":
            whole = [path for path in left if path not in unfinished]
            faults += tuple(path.name for path in whole if not _same_file(path, alone / path.name))
            for path in whole:  # a job replaces no file
                path.unlink()
        if not saved(output / "checkpoints"):
            _finish(command, output)
        different += _different_files(alone, output)
        shown = ", ".join(path.name for path in left) or "nothing"
        kills.append(Kill(job, name, f"writing {file.removeprefix('unfinished_')}", shown, faults))
    return kills, different


def _finish(command: Sequence[str], output: Path) -> None:
    subprocess.run([*command, f"--output={output}"], check=True, stdout=subprocess.DEVNULL)


def _different_files(one: Path, other: Path) -> list[str]:
    """The files of an export, or the arrays of a compact network, that differ."""
    if (one / "checkpoints").is_dir():
        arrays = [_saved_leaves(directory / "checkpoints") for directory in (one, other)]
        names = sorted(arrays[0].keys() | arrays[1].keys())
        return [
            n
            for n in names
            if not all(n in a for a in arrays) or not same_bits(*(a[n] for a in arrays))
        ]
    names = sorted({path.name for path in (*one.iterdir(), *other.iterdir())})
    return [name for name in names if not _same_file(one / name, other / name)]


def _same_file(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _saved_leaves(directory: Path) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(directory, "", read_only=True)
    _, tree = checkpoints.restore_tree()
    checkpoints.close()
    return leaves(tree)
