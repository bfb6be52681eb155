"""What pruning adds to a training step, where it is not due and where it is.

    python -m experiments.benchmark.pruning_overhead
    python -m experiments.benchmark.pruning_overhead --method ghfp --batch_size 32

A step is the very step of `kdjax.training.step` with method 'cross_entropy' and the optimizer of
`kdjax.config`. Pruning is due after every epoch; these programs differ in `config.pruning` and in
how long an epoch is:

    none              nothing is pruned
    not due           an epoch has very many steps
    not due, before   the same with `evaluate_before`, which keeps what pruning takes away
    due               an epoch has one step
    due, before       the same with `evaluate_before`

Rounds alternate between the programs (A B C A B C ...), so that a slow spell of the machine hits
all of them; ratios are of a round's programs, and their median over the rounds.

Where pruning costs less than the steps' times scatter, the optimizer's part alone says more: it is
also a program of its own, on the same gradients, and what it takes longer than that without pruning
is given as a part of the step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import optax

from experiments.benchmark import report
from experiments.benchmark.mcl_step import NUM_CLASSES
from experiments.benchmark.policies import Settings, make_data
from kdjax import config as configs
from kdjax import methods
from kdjax.compaction.latency import alternate
from kdjax.data import preprocessing
from kdjax.parallel import AXIS, Parallel
from kdjax.training import optimizers
from kdjax.training import step as training

NONE = "none"
MANY = 10_000  # steps of an epoch that does not end
# name: (steps of an epoch, evaluate_before)
PROGRAMS = {
    NONE: (MANY, False),
    "not due": (MANY, False),
    "not due, before": (MANY, True),
    "due": (1, False),
    "due, before": (1, True),
}


class Training:
    """A method with its pruning, its optimizer and its state."""

    def __init__(self, name: str, pruning_method: str, settings: Settings):
        every, before = PROGRAMS[name]
        self.config = config = configs.base()
        config.networks, config.batch_size = (settings.network,), settings.batch_size
        if name != NONE:
            config.pruning.method, config.pruning.evaluate_before = pruning_method, before
        self.dataset = make_data(settings)
        self.parallel = Parallel(config.parallel, config.dtype)
        labels = np.zeros(settings.batch_size * every, np.int8)  # so many steps has an epoch
        self.method = methods.create(
            config, num_classes=NUM_CLASSES, axis_name=AXIS, train_labels=labels
        )
        self.tx = self.method.optimizer(optimizers.create(config, steps_per_epoch=MANY))
        initialize = jax.jit(
            lambda key: training.init_state(self.method, self.tx, key, self.dataset.image_shape)
        )
        self.state = self.parallel.replicate(jax.device_get(initialize(jax.random.key(0))))

    def step(self) -> Callable[[int], float]:
        """A program for `alternate`: so many training steps."""
        train = self.dataset.train
        constants = self.parallel.replicate({"image": train.images, "label": train.labels})
        prepare = preprocessing.train_input(self.dataset, self.config.data.augmentation)
        step = training.train_step(self.method, self.tx, prepare, self.config.seed)
        mapped = self.parallel.map(step, donate=True)
        rows = np.arange(self.config.batch_size, dtype=np.int32)[None]
        batches = self.parallel.shard({"index": self.parallel.split(rows)})

        def steps() -> None:
            self.state, metrics = mapped(self.state, constants, batches)
            jax.block_until_ready((self.state, metrics))

        return timed(steps)

    def optimizer(self) -> Callable[[int], float]:
        """A program for `alternate`: so many updates of the parameters."""
        params = jax.device_get(self.state.params)
        state = jax.device_put((params, jax.device_get(self.state.opt_state)))
        random = np.random.default_rng(0)
        gradients = jax.tree.map(
            lambda x: 1e-3 * random.normal(size=x.shape).astype(np.float32), params
        )
        gradients = jax.device_put(gradients)

        def update(state, gradients):
            params, opt_state = state
            updates, opt_state = self.tx.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        update = jax.jit(update, donate_argnums=0)

        def updates() -> None:
            nonlocal state
            state = jax.block_until_ready(update(state, gradients))

        return timed(updates)


def timed(call: Callable[[], None]) -> Callable[[int], float]:
    def run(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - start

    return run


def table(steps: np.ndarray, updates: np.ndarray) -> list[str]:
    """Per program: its step, over the one without pruning, and what its optimizer takes longer.

    Args:
      steps, updates: seconds `[rounds, programs]`, the first program without pruning.
    """
    header = f"{'pruning':<17} {'step ms':>9} {'over none':>10} {'optimizer ms':>13}"
    lines = [f"{header} {'longer, of a step':>18}"]
    step = statistics.median(steps[:, 0])
    for index, name in enumerate(PROGRAMS):
        ratio = statistics.median(steps[:, index] / steps[:, 0])
        longer = statistics.median(updates[:, index] - updates[:, 0])
        lines.append(
            f"{name:<17} {1e3 * steps[:, index].min():>9.2f} {ratio:>10.3f} "
            f"{1e3 * updates[:, index].min():>13.3f} {100 * longer / step:>16.2f} %"
        )
    spread = (steps[:, 0].max() - steps[:, 0].min()) / step
    return [*lines, "", f"the step without pruning varied by {100 * spread:.0f} % over the rounds"]


def describe(options: argparse.Namespace, settings: Settings, rounds: int) -> list[str]:
    side = settings.image_size
    return [
        report.command("pruning_overhead"),
        "",
        f"training step of {settings.network} with {options.method} and without, batch "
        f"{settings.batch_size} of {side}x{side}, float32",
        report.machine(jax.devices()[0].device_kind),
        f"{rounds} alternating rounds; milliseconds of the fastest, medians of ratios and "
        "differences",
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="sfp", help="config.pruning.method")
    parser.add_argument("--network", default="sfp_resnet20")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--output", default="experiments/results/benchmark/pruning_overhead.txt")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if jax.device_count() > 1:
        raise SystemExit("the benchmark is of one device; hide the others (CUDA_VISIBLE_DEVICES=0)")
    settings = Settings(options.network, options.batch_size, options.image_size, steps=1)
    sides = [Training(name, options.method, settings) for name in PROGRAMS]
    updates = alternate([each.optimizer() for each in sides], rounds=10 * options.rounds)
    steps = alternate([each.step() for each in sides], rounds=options.rounds)
    lines = [*describe(options, settings, options.rounds), "", *table(steps, updates)]
    print("\n".join(lines))
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
