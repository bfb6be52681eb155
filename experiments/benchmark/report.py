"""What every page of a benchmark says: the command, the machine, the libraries."""

import os
import pathlib
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

# How the PyTorch sides differ.
TORCH_SIDES = {
    "torch": {},
    "torch channels_last": {"channels_last": True},
    "torch.compile": {"compile": True},
    "torch.compile channels_last": {"channels_last": True, "compile": True},
}


def command(name: str) -> str:
    """The command line that was given, for a benchmark's first line."""
    return " ".join([f"$ python -m experiments.benchmark.{name}", *sys.argv[1:]])


def machine(device: str, libraries: Sequence[str] = ("jax", "flax")) -> str:
    """A line on the device, this machine's cores, and the versions of libraries."""
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return f"{device}, {cores()} cores ({platform.machine()}); {versions}"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def write(lines: Sequence[str], output: str) -> None:
    """Writes a page, and makes its directory where there is none."""
    path = pathlib.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
