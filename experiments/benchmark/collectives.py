"""The collectives of every method's compiled training step, and whether it reuses its state.

    python -m experiments.benchmark.collectives
    python -m experiments.benchmark.collectives --methods mcl hssakd

Steps are compiled for two CPU devices and not run: networks and images are those of the smoke test
of `experiments.benchmark.steps`, except that detection has ResNet-18. LLVM's optimizations are off,
since XLA has placed the collectives before them.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("method", "all-reduce", "gather", "scatter", "other", "BatchNorm", "state reused")

_COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-[a-z]+)(?:-start)?\("
)


class Counts(NamedTuple):
    """Collectives of one compiled step.

    Attributes:
      all_reduce: sums over devices. An instruction that sums many arrays counts once.
      gather: gathers of arrays from all devices, without those of BatchNorm.
      scatter: sums of which each device keeps a part, the gradients of gathers, likewise.
      other: any other collective.
      normalization: gathers and scatters of BatchNorm's moments.
      reused: the share of the state's bytes whose memory the new state takes over.
    """

    all_reduce: int
    gather: int
    scatter: int
    other: int
    normalization: int
    reused: float


def count(compiled, state) -> Counts:
    """The collectives of a compiled step `(state, constants, batches) -> state, metrics`.

    Args:
      compiled: a `jax.stages.Compiled`.
      state: its first argument, or the shapes of it.
    """
    import jax

    kinds: collections.Counter[str] = collections.Counter()
    for line in compiled.as_text().splitlines():
        if match := _COLLECTIVE.search(line):
            kinds["normalization" if "/synchronized_moments/" in line else match[1]] += 1
    sums, gathers, scatters = (kinds.pop(f"{name}", 0) for name in _KINDS)
    normalization = kinds.pop("normalization", 0)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    reused = compiled.memory_analysis().alias_size_in_bytes / size
    return Counts(sums, gathers, scatters, kinds.total(), normalization, reused)


_KINDS = ("all-reduce", "all-gather", "reduce-scatter")


# Networks of methods that cannot train the smoke test's.
NETWORKS = {"detection": "resnet18"}


def of_method(name: str, network: str = "", **changes) -> Counts:
    """The counts of a method's step.

    Args:
      name: of the method.
      network: its networks; '' for the smallest that the method trains.
      changes: of its config; `a__b=1` is `a.b`.
    """
    from experiments.benchmark import steps
    from kdjax.training.building import build

    with tempfile.TemporaryDirectory() as folder:
        network = network or NETWORKS.get(name, steps.SMOKE.network)
        settings = steps.SMOKE._replace(network=network)
        config = steps.make_config(name, settings, Path(folder))
        config.steps_per_dispatch = 1
        flat = {name.replace("__", "."): value for name, value in changes.items()}
        config.update_from_flattened_dict(flat)
        program = build(config)
        state, (_, batches) = program.abstract_state(), next(program.feed.train(0, 0))
        lowered = program.train_steps.lower(state, program.feed.train_constants(), batches)
        return count(lowered.compile(), state)


def row(name: str) -> str:
    """The line of a method in the table."""
    *numbers, reused = of_method(name)
    return f"| {name} | {' | '.join(map(str, numbers))} | {reused:.0%} |"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", help="all that are registered unless given")
    options = parser.parse_args(argv)
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    import jax

    jax.config.update("jax_num_cpu_devices", 2)
    from experiments.benchmark import report
    from kdjax.methods import METHODS

    print(report.command("collectives"))
    print(f"{jax.device_count()} devices; {report.machine('cpu')}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in options.methods or list(METHODS):
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
