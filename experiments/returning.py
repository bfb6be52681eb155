"""How large filters become that return from zero, beside those that were kept.

    python -m experiments.returning runs/pruning_cifar100/sfp_40_seed0

Repeats the first epochs of a run and prints, after some of their steps, the mean norm of the
filters that the latest pruning kept, and of those that it pruned.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

import kdjax
from kdjax.parallel import fetch
from kdjax.pruning import pruning_state
from kdjax.training.program import Program
from kdjax.training.step import TrainState
from kdjax.tree import leaves

AFTER = (1, 5, 20)  # steps of an epoch; and those around its end


def norms(state: TrainState) -> tuple[float, float]:
    """Mean norms of the filters that the latest pruning kept, and of the others."""
    params, masks = leaves(state.params), pruning_state(state.opt_state).masks
    filter_norms = {
        name: np.sqrt(np.square(params[f"{name}/kernel"]).sum((0, 1, 2), dtype=np.float64))
        for name in masks
    }
    kept, others = (
        np.concatenate([filter_norms[name][masks[name] == keep] for name in masks])
        for keep in (True, False)
    )
    return float(kept.mean()), float(others.mean())


def rows(program: Program, epochs: int):
    """A line for some steps of the first epochs."""
    constants = program.feed.train_constants()
    state = program.parallel.replicate(program.init_state())
    per_epoch = program.steps_per_epoch
    step = 0
    for epoch in range(epochs):
        for steps, batches in program.feed.train(epoch, 0):
            state, _ = program.train_steps(state, constants, batches)
            step += steps
            if step - epoch * per_epoch in (*AFTER, per_epoch - 1, per_epoch):
                kept, others = norms(fetch(state))
                yield f"{step:>5} {kept:>7.2f} {others:>8.2f}"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(argv)
    run = kdjax.load_run(options.workdir)
    config = ConfigDict(run.config.to_dict())
    config.steps_per_dispatch = 1
    program = dataclasses.replace(run, config=config).restore("latest").program
    print(f"{options.workdir.name}: pruned after every {program.steps_per_epoch} steps")
    print(f"{'step':>5} {'kept':>7} {'pruned':>8}")
    for row in rows(program, options.epochs):
        print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
