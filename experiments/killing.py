"""Commands that are ended by a signal at a moment that a test chooses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAIN = (sys.executable, "-m", "kdjax.main")
# A quarter of the digits, and steps one by one: the run is short, and signals come between steps.
FEW = ("--config.data.train_fraction=0.25", "--config.steps_per_dispatch=1")
_POLL_SECONDS = 0.0005


class Kill(NamedTuple):
    """One kill, as a row of the table.

    Attributes:
      scene: which command it ended.
      signal: by name.
      moment: where it was aimed at.
      left: what it left.
      faults: what should not be so.
    """

    scene: str
    signal: str
    moment: str
    left: str
    faults: tuple[str, ...] = ()


# The kills of a scene, and what differs from the scene left alone.
Outcome = tuple[list[Kill], list[str]]


def end(command: Sequence[str], name: str, moment: Callable) -> tuple[str, ...]:
    """Starts a command and sends it a signal at a moment; what should not be so of its end."""
    number = signal.Signals[name]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        moment(process)
        process.send_signal(number)
        _, errors = process.communicate()
    expected = -number if name == "SIGKILL" else 128 + number
    faults = () if process.returncode == expected else (f"status {process.returncode} of {name}",)
    return faults if len(errors.splitlines()) <= 1 else (*faults, f"{name}: {errors[-200:]!r}")


def wait(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    """Returns when something has happened.

    Raises:
      RuntimeError: the process ended before.
    """
    while not happened():
        if process.poll() is not None:
            raise RuntimeError(
                f"the command ended before it was killed: status {process.returncode}: "
                f"{process.stderr.read()[-300:]}"
            )
        time.sleep(_POLL_SECONDS)


def _names(checkpoints: Path) -> list[str]:
    return os.listdir(checkpoints) if checkpoints.is_dir() else []


def latest(checkpoints: Path) -> int:
    """Step of the newest finished checkpoint, or 0."""
    return max((int(name) for name in _names(checkpoints) if name.isdigit()), default=0)


def unfinished(checkpoints: Path) -> bool:
    """Whether a checkpoint is half-written."""
    return any(not name.isdigit() for name in _names(checkpoints))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and bytes."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
