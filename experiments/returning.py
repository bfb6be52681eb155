"""How large filters become that return from zero, beside those that were kept.

    python -m experiments.returning sfp_40 --config.data.dir=DATA/tfds

A label of experiments.pruning_cifar100 in its first epochs, seed 0. At some steps: the mean norm of
the filters that the latest pruning kept, and of those that it pruned. What follows the label are
flags of `kdjax.main`.
"""

import argparse
import sys

import numpy as np
from absl import flags

from experiments import pruning_cifar100
from kdjax.cli import command_line
from kdjax.parallel import fetch
from kdjax.pruning import pruning_state
from kdjax.training.program import Program, build
from kdjax.training.step import TrainState
from kdjax.tree import leaves

AFTER = (1, 5, 20)  # steps of an epoch; and those around its end


def norms(state: TrainState) -> tuple[float, float]:
    """Mean norms of the filters that the latest pruning kept, and of the others."""
    params, masks = leaves(state.params), pruning_state(state.opt_state).masks
    found = {
        name: np.sqrt(np.square(params[f"{name}/kernel"]).sum((0, 1, 2), dtype=np.float64))
        for name in masks
    }
    kept, others = (
        np.concatenate([found[name][masks[name] == keep] for name in masks])
        for keep in (True, False)
    )
    return float(kept.mean()), float(others.mean())


def rows(run: Program, epochs: int):
    """A line for some steps of the first epochs."""
    constants = run.feed.constants("train")
    state = run.parallel.replicate(run.init_state())
    per_epoch = run.steps_per_epoch
    step = 0
    for epoch in range(epochs):
        for steps, batches in run.feed.train(epoch, 0):
            state, _ = run.train_steps(state, constants, batches)
            step += steps
            if step - epoch * per_epoch in (*AFTER, per_epoch - 1, per_epoch):
                kept, others = norms(fetch(state))
                yield f"{step:>5} {kept:>7.2f} {others:>8.2f}"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("label", choices=pruning_cifar100.RUNS)
    parser.add_argument("--epochs", type=int, default=2)
    options, extra = parser.parse_known_args(argv)
    command = [
        "returning",
        *pruning_cifar100.RUNS[options.label],
        *pruning_cifar100.COMMON,
        "--config.steps_per_dispatch=1",
        *extra,
    ]
    values = flags.FlagValues()
    command_line.define(values, command)
    values(command)
    run = build(values.config)
    print(f"{options.label}: pruned after every {run.steps_per_epoch} steps")
    print(f"{'step':>5} {'kept':>7} {'pruned':>8}")
    for row in rows(run, options.epochs):
        print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
