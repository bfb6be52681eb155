"""Flips single bits of a checkpoint, and counts what its reader makes of them.

    python -m experiments.bit_flips

Every flip hits a random bit of a random file, by size. A flip is detected if the checkpoint before
is read instead, harmless if arrays, metrics and metadata come back as they were saved, and silent
otherwise. The exit status is 0 if none is silent.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from kdjax.errors import UserError
from kdjax.runs.checkpoints import Checkpoints

FLIPS = 200


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=FLIPS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None  # of tensorstore's threads, once orbax has closed its loop
    with tempfile.TemporaryDirectory() as directory:
        outcomes = flip(Path(directory), arguments.flips, arguments.seed)
    print(f"{arguments.flips} single-bit flips, seed {arguments.seed}:")
    for outcome in ("detected", "harmless", "silent"):
        print(f"  {outcome:<9}{outcomes[outcome]:>4}")
    return 1 if outcomes["silent"] else 0


def flip(directory: Path, count: int, seed: int) -> collections.Counter:
    """The outcomes of `count` flips: 'detected', 'harmless', 'silent'."""
    good = directory / "good"
    checkpoints = Checkpoints(good, "top1")
    for step in (1, 2):
        checkpoints.save(step, _state(step), {"top1": step / 10}, {"networks": ["tiny"] * step})
        checkpoints.wait()
    checkpoints.close()
    generator, outcomes = random.Random(seed), collections.Counter()
    files = sorted(path for path in (good / "2").rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    for _ in range(count):
        copy = directory / "flipped"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(good, copy)
        path = copy / generator.choices(files, sizes)[0].relative_to(good)
        content = bytearray(path.read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        outcomes[_outcome(copy)] += 1
    return outcomes


def _outcome(directory: Path) -> str:
    reader = Checkpoints(directory, "top1", read_only=True)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            loaded = reader.load("latest")
        except UserError:
            return "detected"
    reader.close()
    if loaded.step == 1:
        return "detected"
    same = (loaded.metrics, loaded.metadata) == ({"top1": 0.2}, {"networks": ["tiny"] * 2})
    expected = _state(2)
    pairs = zip(jax.tree.leaves(loaded.fitted(expected)), jax.tree.leaves(expected), strict=True)
    return "harmless" if same and all(a.tobytes() == b.tobytes() for a, b in pairs) else "silent"


def _state(step: int) -> dict:
    generator = np.random.default_rng(step)
    return {
        f"layer{index}": {
            "kernel": generator.normal(size=(3, 3, 8, 16)).astype(np.float32),
            "bias": np.zeros(16, np.float32),
        }
        for index in range(4)
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
