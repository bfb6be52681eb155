"""CIFAR-100, ResNet-32: two networks by MCL beside one by cross entropy, as far as the time goes.

Both are command lines of `kdjax.main`, with the schedule of their config files, that run side by
side on the card. At the end of the time SIGTERM makes both save a checkpoint; their workdirs come
back as archives (`archives.py`), from which a later command goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RUNS = ("mcl", "cross_entropy")
# Several processes share the card.
ENVIRONMENT = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
# The statuses of a run that SIGTERM ended, after it was ready for it and before.
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)


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
    processes = {}
    for name in RUNS:
        with (scratch / f"{name}.log").open("w") as log:
            processes[name] = subprocess.Popen(
                command(name, scratch, dtype, epochs, tiny=tiny),
                env=ENVIRONMENT,
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
    if status not in (0, *STOPPED):
        found["output"] = (scratch / f"{name}.log").read_text()[-2000:]
    return found


def table(found: dict[str, dict], about: dict) -> list[str]:
    """Accuracies by epoch as Markdown."""
    images = about["images"]
    lines = [
        f"{images['train']} training and {images['test']} test images, {about['dtype']}, a "
        f"schedule of {about['epochs']} epochs; the two runs shared the card.",
        "",
    ]
    for name, run in found.items():
        states = {0: "all epochs done"} | dict.fromkeys(STOPPED, "stopped")
        state = states.get(run["status"], "FAILED")
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
