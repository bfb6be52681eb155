"""What training gains from networks that lose their hard filters while they are trained.

    python -m experiments.benchmark.shrinking
    python -m experiments.benchmark.shrinking --rates 0.6 --epochs 200 --shrink 20 50 100

GHFP's training steps, as `kdjax.main` makes them, on digits at 32x32. After each of the epochs
`--shrink` of a run of `--epochs`, the network that was shrunk then takes turns with the one that is
masked only (A B A B ...), so that a slow spell of the machine hits both; ratios are medians over
the turns. The time of the whole run is computed from them: each lasts until the next shrinking.
Evaluation is not counted.
"""

from __future__ import annotations

import argparse
import statistics

import jax
from ml_collections import ConfigDict

from experiments.benchmark import report
from experiments.benchmark.pruning_overhead import timed
from kdjax import config as configs
from kdjax import methods, models
from kdjax.compaction.latency import alternate
from kdjax.parallel import fetch
from kdjax.pruning import schedules
from kdjax.training import shrinking
from kdjax.training.building import build

CASES = (("sfp_resnet20", "conv_bn"), ("resnet20", "coupled"))


def config_of(network: str, filters: str, rate: float, hard: float, batch: int) -> ConfigDict:
    """A run of GHFP of which this fraction of the pruned filters is hard."""
    config = configs.pruning_run("ghfp", f"digits,{network},{rate}")
    config.data.image_size, config.batch_size = 32, batch
    config.pruning.filters, config.pruning.hard_fraction = filters, str(hard)
    return config


class Training:
    """A run in its first epoch, whose hard filters are masked or taken out."""

    def __init__(self, config: ConfigDict, *, shrunk: bool):
        self.run = build(config)
        self.constants = self.run.feed.train_constants()
        self.batch = next(self.run.feed.train(0, 0))[1]
        self.state = self.run.parallel.replicate(self.run.init_state())
        self.step()  # hard filters lose their BatchNorm in the first step
        if shrunk:
            left, state, _ = shrinking.shrink(self.run, fetch(self.state))
            self.run = self.run.with_compactions(left)
            self.state = self.run.parallel.replicate(state)

    def step(self) -> None:
        self.state, metrics = self.run.train_steps(self.state, self.constants, self.batch)
        jax.block_until_ready((self.state, metrics))

    def multiply_adds(self) -> int:
        (network,) = methods.networks(
            self.run.config, self.run.num_classes, compactions=self.run.compactions
        )
        return models.multiply_adds(network, self.run.image_shape)


def measure(config: ConfigDict, rounds: int) -> tuple[float, list[float]]:
    """Multiply-adds, and the time of a step in every round, of the shrunk run over the masked."""
    pair = [Training(config, shrunk=shrunk) for shrunk in (False, True)]
    masked, shrunk = (each.multiply_adds() for each in pair)
    seconds = alternate([timed(each.step) for each in pair], rounds=rounds)
    return shrunk / masked, sorted(seconds[:, 1] / seconds[:, 0])


def rows(options: argparse.Namespace, network: str, filters: str, rate: float):
    """Lines of the table for one network and rate; the last one is of the whole run."""
    fraction = schedules.cubic(1.0, options.epochs)
    ends = [*options.shrink[1:], options.epochs]
    weighted = float(options.shrink[0])
    for epoch, end in zip(options.shrink, ends, strict=True):
        hard = float(fraction(epoch - 1))  # t counts from 0
        config = config_of(network, filters, rate, hard, options.batch_size)
        macs, ratios = measure(config, options.rounds)
        middle, quarters = statistics.median(ratios), statistics.quantiles(ratios, n=4)
        weighted += middle * (end - epoch)
        yield (
            f"{network:<13} {filters:<9} {100 * rate:>3.0f}% {epoch:>6} {hard:>14.3f} "
            f"{macs:>14.3f} {middle:>8.3f}   {quarters[0]:.3f}-{quarters[2]:.3f}"
        )
    whole = weighted / options.epochs
    yield f"{network:<13} {filters:<9} {100 * rate:>3.0f}%  whole run {'':>25} {whole:>8.3f}"


def describe(options: argparse.Namespace) -> list[str]:
    return [
        report.command("shrinking"),
        "",
        "training steps of shrunk networks over masked ones, GHFP of "
        f"{options.epochs} epochs, batch {options.batch_size} of 32x32, float32",
        report.machine(jax.devices()[0].device_kind),
        f"{options.rounds} turns of each; medians and quartiles of the ratios",
        "",
        f"{'network':<13} {'filters':<9} rate  after  hard fraction  multiply-adds     step   "
        "quartiles",
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", nargs="*", type=float, default=[0.4, 0.6])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--shrink", nargs="*", type=int, default=[25, 50, 100])
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", default="experiments/results/benchmark/shrinking.txt")
    return parser.parse_args()


def main() -> None:
    options = parse()
    lines = describe(options)
    print("\n".join(lines), flush=True)
    for rate in options.rates:
        for network, filters in CASES:
            for line in rows(options, network, filters, rate):
                lines.append(line)
                print(line, flush=True)
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
