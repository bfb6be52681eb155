"""What the augmentation policies add to a training step.

    python -m experiments.benchmark.policies
    python -m experiments.benchmark.policies --batch_size 128 --steps 20

A step is the very step of `kdjax.training.step` with method 'cross_entropy' and the optimizer of
`kdjax.config`: gather a batch of uint8 images held in memory, crop and flip, one policy or none,
normalize, forward, loss, backward, update. Rounds alternate between the programs (A B C A B C ...),
so that a slow spell of the machine hits all of them; ratios are of a round's programs, and their
median over the rounds.

Where a policy costs less than the steps' times scatter, its time alone says more: each policy is
also a program of its own, on the same batch, and its time is given as a part of the step's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmark import report
from experiments.benchmark.mcl_step import MEAN, NUM_CLASSES, STD
from kdjax import config as configs
from kdjax import methods
from kdjax.data import ArraySplit, Dataset, policies, preprocessing
from kdjax.parallel import AXIS, Parallel
from kdjax.training import optimizers
from kdjax.training import step as training

NONE = "none"


class Settings(NamedTuple):
    """What is measured: the network, the images of a batch, their side, the steps of a round."""

    network: str
    batch_size: int
    image_size: int
    steps: int


def make_data(settings: Settings) -> Dataset:
    """Random images, four batches of them."""
    random = np.random.default_rng(0)
    count, shape = 4 * settings.batch_size, (settings.image_size, settings.image_size, 3)
    images = random.integers(0, 256, (count, *shape), np.uint8)
    split = ArraySplit(images, random.integers(0, NUM_CLASSES, count).astype(np.int32))
    names = tuple(map(str, range(NUM_CLASSES)))
    return Dataset("random", split, split, names, shape, MEAN, STD)


class Steps:
    """The training step with each policy, all of them on one state."""

    def __init__(self, settings: Settings):
        self.config = config = configs.base()
        config.networks, config.batch_size = (settings.network,), settings.batch_size
        self.dataset = make_data(settings)
        self.parallel = Parallel(config.parallel, config.dtype)
        self.method = methods.create(config, num_classes=NUM_CLASSES, axis_name=AXIS)
        self.tx = optimizers.create(config, steps_per_epoch=1)
        train = self.dataset.train
        self.constants = self.parallel.replicate({"image": train.images, "label": train.labels})
        self.rows = self._rows(settings)
        initialize = jax.jit(
            lambda key: training.init_state(self.method, self.tx, key, self.dataset.image_shape)
        )
        self.state = self.parallel.replicate(jax.device_get(initialize(jax.random.key(0))))

    def _rows(self, settings: Settings) -> list[np.ndarray]:
        """Image numbers [steps, batch] of a round's dispatches; on CPU each is one step."""
        count = len(self.dataset.train.labels)
        size = (settings.steps, settings.batch_size)
        rows = np.random.default_rng(1).integers(0, count, size).astype(np.int32)
        return list(rows[:, None]) if jax.default_backend() == "cpu" else [rows]

    def program(self, name: str) -> Callable[[], float]:
        """A function that makes a round with this policy and returns its seconds."""
        names = () if name == NONE else (name,)
        prepare = preprocessing.train_input(
            self.dataset, self.config.data.augmentation, policy_names=names
        )
        step = training.train_step(self.method, self.tx, prepare, self.config.seed)
        mapped = self.parallel.map(step, donate=True)

        def one_round() -> float:
            start = time.perf_counter()
            for rows in self.rows:
                batches = self.parallel.shard({"index": self.parallel.split(rows)})
                self.state, metrics = mapped(self.state, self.constants, batches)
            losses = np.asarray(metrics["loss"])
            jax.block_until_ready(self.state)
            if not np.isfinite(losses).all():
                raise SystemExit(f"{name}: the loss is {losses}")
            return time.perf_counter() - start

        return one_round


def alone(name: str, settings: Settings, images: np.ndarray) -> Callable[[], float]:
    """A function that does a round's steps of this policy and nothing else; returns seconds."""
    policy = jax.jit(policies.create((name,)))
    keys = jax.random.split(jax.random.key(0), settings.batch_size)
    images = jax.device_put(images[: settings.batch_size])

    def one_round() -> float:
        start = time.perf_counter()
        for _ in range(settings.steps):
            found = policy(keys, images)
        jax.block_until_ready(found)
        return time.perf_counter() - start

    return one_round


def table(
    steps: dict[str, list[float]], parts: dict[str, list[float]], settings: Settings
) -> list[str]:
    """Per policy: its step's milliseconds, over the step without, and the policy's own share."""
    header = f"{'policy':<17} {'step ms':>9} {'over none':>10} {'alone ms':>9} {'of a step':>10}"
    usual = statistics.median(steps[NONE])
    lines = [header]
    for name, seconds in steps.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, steps[NONE], strict=True))
        line = (
            f"{name:<17} {1e3 * statistics.median(seconds) / settings.steps:>9.2f} {ratio:>10.3f}"
        )
        if name in parts:
            own = statistics.median(parts[name])
            line += f" {1e3 * own / settings.steps:>9.2f} {100 * own / usual:>8.2f} %"
        lines.append(line)
    spread = (max(steps[NONE]) - min(steps[NONE])) / usual
    return [*lines, "", f"the step without a policy varied by {100 * spread:.0f} % over the rounds"]


def describe(settings: Settings, rounds: int) -> list[str]:
    side = settings.image_size
    return [
        report.command("policies"),
        "",
        f"training step of {settings.network} with a policy and without, batch "
        f"{settings.batch_size} of {side}x{side}, float32",
        report.machine(jax.devices()[0].device_kind),
        f"{rounds} rounds of {settings.steps} steps per program, alternating; medians",
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="selfkd_resnet18")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1, help="per round and program")
    parser.add_argument(
        "--policies", nargs="*", choices=policies.POLICIES, default=list(policies.POLICIES)
    )
    parser.add_argument("--output", default="experiments/results/benchmark/policies.txt")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if jax.device_count() > 1:
        raise SystemExit("the benchmark is of one device; hide the others (CUDA_VISIBLE_DEVICES=0)")
    settings = Settings(options.network, options.batch_size, options.image_size, options.steps)
    made = Steps(settings)
    images = made.dataset.train.images
    steps = {name: made.program(name) for name in (NONE, *options.policies)}
    parts = {name: alone(name, settings, images) for name in options.policies}
    for programs in (steps, parts):  # the first round compiles, the second warms up
        for program in programs.values():
            program()
            program()
    times = {name: [] for name in steps}
    own = {name: [] for name in parts}
    for _ in range(options.rounds):
        for name, program in steps.items():
            times[name].append(program())
        for name, program in parts.items():
            own[name].append(program())
    lines = [*describe(settings, options.rounds), "", *table(times, own, settings)]
    print("\n".join(lines))
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
