"""Temporary memory of a compiled step: whole batches and micro-batches, activations kept or not.

    python -m experiments.benchmark.step_memory

Compiled and not run: cross entropy, ResNet-20, 64 images of 32x32 pixels, float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import numpy as np

from experiments.benchmark import report
from kdjax import config as configs
from kdjax.training.building import build

BATCH, CLASSES = 64, 10
WAYS = {"whole batch": 1, "accumulate=4": 4}


def temporary_mebibytes(source: str, accumulate: int, remat: bool) -> float:
    """Of the step's program, beside its arguments and results."""
    config = configs.cifar_run("cross_entropy", "cifar10,resnet20", count=1)
    config.data.source, config.batch_size = source, BATCH
    config.optimizer.accumulate, config.remat = accumulate, remat
    program = build(config)
    _, batches = next(program.feed.train(0, 0))
    constants = program.feed.train_constants()
    lowered = program.train_steps.lower(program.abstract_state(), constants, batches)
    return lowered.compile().memory_analysis().temp_size_in_bytes / 2**20


def main() -> None:
    print(report.command("step_memory"))
    print(f"{report.machine(jax.devices()[0].device_kind)}\n")
    print("| MiB | kept | recomputed |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path, arrays = Path(folder) / "images.npz", {}
        for split in ("train", "test"):
            arrays[f"{split}_images"] = np.zeros((BATCH, 32, 32, 3), np.uint8)
            arrays[f"{split}_labels"] = np.arange(BATCH) % CLASSES
        np.savez(path, **arrays)
        for name, count in WAYS.items():
            kept, again = (
                temporary_mebibytes(f"arrays:{path}", count, remat) for remat in (False, True)
            )
            print(f"| {name} | {kept:.1f} | {again:.1f} |", flush=True)


if __name__ == "__main__":
    main()
