"""Whole runs in processes of their own, on data and networks that take seconds."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
CLASSES = 4


def write_arrays(path: Path, *, train: int = 96, test: int = 30, size: int = 8) -> str:
    """Writes noisy images of `CLASSES` shades; returns the `config.data.source`."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % CLASSES
        noise = random.integers(0, 128, (count, size, size, 3))
        arrays[f"{split}_images"] = (noise + 30 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels
    np.savez(path, **arrays)
    return f"arrays:{path}"


def settings(source: str, **changes) -> list[str]:
    """Flags of a run of `configs/cross_entropy.py` with the tiny network; `a__b=1` is `a.b`."""
    values = {"epochs": 2, "batch_size": 16, "evaluation__batch_size": 16, "data__source": source}
    values |= changes
    flags = [f"--config.{name.replace('__', '.')}={value}" for name, value in values.items()]
    return [f"--config={ROOT}/configs/cross_entropy.py:digits,tiny", *flags]


def start(
    *arguments: str, module: str = "tests.tiny_runs.command_line", devices: int = 1, **variables
):
    """Starts `python -m MODULE ARGUMENTS` with that many devices; returns the process."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes: subprocess.Popen, status: int = 0, seconds: int = 240) -> list[str]:
    """Waits; returns what each printed. All must end with `status`."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == status, errors
    return [output for output, _ in outputs]


def start_two(*arguments: str, **options) -> list[subprocess.Popen]:
    """The same command line as two processes that find each other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        start(
            *arguments,
            **options,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
