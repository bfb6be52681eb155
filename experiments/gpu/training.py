"""CIFAR-100, ResNet-32: two networks by MCL beside one by cross entropy, as far as the time goes.

Both are command lines of `kdjax.main`, with the schedule of their config files, that run side by
side on the card. At the end of the time SIGTERM makes both save a checkpoint; their workdirs come
back as archives in parts of a size, from which `resume` goes on.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

RUNS = ("mcl", "cross_entropy")
PART_BYTES = 15 * 2**20
_STOPPED = 128 + signal.SIGTERM  # the status of a run that SIGTERM ended


def command(name: str, scratch: Path, dtype: str, epochs: int, *, tiny: bool) -> list[str]:
    """The command line of 'mcl' or 'cross_entropy'."""
    networks = {"mcl": 2, "cross_entropy": 1}[name]
    data = "digits,resnet8" if tiny else "cifar100,resnet32"
    every = (1, 1) if tiny else (2, 10)
    return [
        *(sys.executable, "-m", "kdjax.main"),
        f"--config=configs/{name}.py:{data},{networks}",
        f"--config.data.source=arrays:{scratch / 'data' / 'data_train.npz'}",
        f"--config.dtype={dtype}",
        f"--config.epochs={epochs}",
        f"--config.evaluation.every_epochs={every[0]}",
        f"--config.checkpoint.every_epochs={every[1]}",
        f"--workdir={scratch / name}",
    ]


def train(
    scratch: Path, deadline: float, *, dtype: str, epochs: int, tiny: bool
) -> dict[str, dict]:
    """Trains until all epochs are done or the deadline is near.

    Returns:
      By run: its status (0: done, 143: stopped and saved), its rows with an evaluation, the last
      step, and the end of its output where it failed.
    """
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
    processes = {}
    for name in RUNS:
        log = (scratch / f"{name}.log").open("w")
        processes[name] = subprocess.Popen(
            command(name, scratch, dtype, epochs, tiny=tiny),
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        while time.monotonic() < deadline and any(p.poll() is None for p in processes.values()):
            time.sleep(0.2)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
    return {name: _result(name, scratch, process.wait()) for name, process in processes.items()}


def _result(name: str, scratch: Path, status: int) -> dict:
    file = scratch / name / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    wanted = ("epoch", "step", "learning_rate", "train/loss", "mean/top1", "ensemble/top1")
    found = {
        "status": status,
        "rows": [{k: row[k] for k in wanted if k in row} for row in rows if "mean/top1" in row],
        "images_per_second": [row["images_per_second"] for row in rows],
    }
    if status not in (0, _STOPPED):
        found["output"] = (scratch / f"{name}.log").read_text()[-2000:]
    return found


def pack(scratch: Path, output: Path, about: dict) -> list[Path]:
    """Archives of the workdirs, in parts, and `training.json`, with which a resumption agrees."""
    files = []
    for name in RUNS:
        if not (scratch / name).is_dir():
            continue
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(scratch / name, name)
        data = buffer.getvalue()
        for number, first in enumerate(range(0, len(data), PART_BYTES)):
            files.append(output / f"{name}.tar.gz.{number}")
            files[-1].write_bytes(data[first : first + PART_BYTES])
    files.append(output / "training.json")
    files[-1].write_text(json.dumps(about, indent=2) + "\n")
    return files


def unpack(folder: Path, scratch: Path, about: dict) -> None:
    """The workdirs of `pack`, to go on with.

    Raises:
      SystemExit: the run was of other images, epochs or precision, or its parts are not there.
    """
    file = folder / "training.json"
    if not file.is_file():
        raise SystemExit(f"--resume={folder}: no training.json; name the --output of a run")
    was = json.loads(file.read_text())
    if other := [key for key in about if was.get(key) != about[key]]:
        told = "; ".join(f"{key} was {was.get(key)}, is {about[key]}" for key in other)
        raise SystemExit(f"--resume={folder}: another run: {told}")
    for name in RUNS:
        parts = sorted(folder.glob(f"{name}.tar.gz.*"), key=lambda part: int(part.suffix[1:]))
        if not parts:
            raise SystemExit(f"--resume={folder}: no {name}.tar.gz.0")
        data = b"".join(part.read_bytes() for part in parts)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(scratch, filter="data")


def table(found: dict[str, dict], about: dict) -> list[str]:
    """Accuracies by epoch as Markdown."""
    images = about["images"]
    lines = [
        f"{images['train']} training and {images['test']} test images, {about['dtype']}, a "
        f"schedule of {about['epochs']} epochs; the two runs shared the card.",
        "",
    ]
    for name, run in found.items():
        state = {0: "all epochs done", _STOPPED: "stopped, saved"}.get(run["status"], "FAILED")
        speeds = sorted(run["images_per_second"])
        speed = f", median {speeds[len(speeds) // 2]:.0f} images/s" if speeds else ""
        lines += [f"{name} ({state}{speed})", "", "| epoch | lr | loss | top-1 % | ensemble % |"]
        lines.append("|---|---|---|---|---|")
        for row in run["rows"]:
            together = row.get("ensemble/top1")
            lines.append(
                f"| {row['epoch']} | {row['learning_rate']:.4f} | {row['train/loss']:.4f} "
                f"| {100 * row['mean/top1']:.2f} "
                f"| {'' if together is None else format(100 * together, '.2f')} |"
            )
        lines += ["", *run.get("output", "").splitlines()]
    return lines
