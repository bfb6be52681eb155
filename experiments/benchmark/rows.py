"""Steps of HSSAKD, GHFP and MixSKD beside PyTorch: float32 with the library and without, bfloat16.

    python -m experiments.benchmark.rows hssakd --batch_size 16
    python -m experiments.benchmark.rows ghfp
    python -m experiments.benchmark.rows mixskd

hssakd: WRN-40-2 -> WRN-16-2, four rotations of every image, as `hssakd_step` has it. ghfp:
ResNet-56 with cross entropy and the pruning of configs/ghfp.py, before its first filters go; the
PyTorch side multiplies kernels by masks after every update. mixskd: the paper's ResNet-18 for
CIFAR. The images of a batch and as many mixtures go through the network, the three branches that
are copies of its remaining stages and the self-teacher in one pass; the loss has all five terms of
`losses.mixskd`, the discriminators' too. kdjax also computes the accuracies of all five heads. The
first two steps of PyTorch's side mix what kdjax's mix, so that losses can be compared; the others
draw lambda and partners themselves.

Every side is a process of its own, asleep while others work, and rounds alternate between the
sides. Before any timing, all sides in float32 must report the same losses of two steps.
"""

from __future__ import annotations

import argparse
import os
from unittest import mock

import numpy as np

from experiments.benchmark import hssakd_step, mcl_step, report

SIDES = (
    "kdjax",
    "kdjax with library",
    "kdjax with library, kept",
    "kdjax bfloat16",
    "kdjax bfloat16 with library",
    "torch channels_last",
    "torch channels_last bfloat16",
)
USUAL = ("kdjax", "kdjax with library", "torch channels_last")
# Side 'kdjax with library, kept': glibc keeps what a step frees, as it does for PyTorch anyway.
KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
}
# With 0.1 networks from He's initial weights make 1e-3 of the rounding of one step.
LEARNING_RATE = 0.01
NETWORKS = {
    "hssakd": ("wrn_40_2", "wrn_16_2"),
    "ghfp": ("resnet56",),
    "mixskd": ("mixskd_resnet18",),
}


def make_side(name: str, options: argparse.Namespace):
    """One side, in a process of its own."""
    os.environ["KDJAX_CPU_KERNELS"] = str(int("library" in name))
    dtype = "bfloat16" if "bfloat16" in name else "float32"
    make = {"hssakd": hssakd_side, "ghfp": ghfp_side, "mixskd": mixskd_side}[options.row]
    return make(name.startswith("torch"), dtype, options)


class Rounds:
    """What `hssakd_step` measures, whose rounds have the steps of its settings."""

    def __init__(self, side):
        self.side = side

    def round(self, steps: int) -> tuple[float, list[float]]:
        """Seconds and losses of a round, whose number of steps is known."""
        del steps
        return self.side.round()


def hssakd_side(torch: bool, dtype: str, options: argparse.Namespace) -> Rounds:
    settings = hssakd_step.Settings(
        *options.networks, options.batch_size, 32, options.steps, dtype=dtype
    )
    config = hssakd_step.make_config(settings)
    if torch:
        shared = hssakd_step.torch_arguments(settings, config)
        return Rounds(hssakd_step.TorchSide(*shared, {"channels_last": True}))
    from experiments.benchmark import kdjax_hssakd

    data, rows = hssakd_step.make_data(settings), hssakd_step.make_rows(settings)
    sides = kdjax_hssakd.Sides(config, data, rows, mcl_step.NUM_CLASSES, hssakd_step.fill)
    return Rounds(sides.step())


def ghfp_side(torch: bool, dtype: str, options: argparse.Namespace):
    settings = mcl_step.Settings(*options.networks, 1, options.batch_size, options.steps, dtype)
    if torch:
        return TorchGhfp(settings)
    config = make_config("cross_entropy", settings)
    config.pruning.method = "ghfp"
    return mcl_step.KdjaxSide(settings, config)


def mixskd_side(torch: bool, dtype: str, options: argparse.Namespace):
    settings = mcl_step.Settings(*options.networks, 1, options.batch_size, options.steps, dtype)
    config = make_config("mixskd", settings)
    return TorchMixskd(settings, config) if torch else mcl_step.KdjaxSide(settings, config)


def make_config(method: str, settings: mcl_step.Settings):
    """One network, trained by `method`, with the optimizer of both sides."""
    config = mcl_step.make_config(settings)
    config.method, config.optimizer.learning_rate = method, LEARNING_RATE
    return config


class TorchGhfp(mcl_step.TorchSide):
    """`torch_ghfp.Trainer`, eager, in channels_last."""

    def __init__(self, settings: mcl_step.Settings):
        from experiments.benchmark import torch_ghfp

        self.rows = mcl_step.make_rows(settings)
        self.trainer = torch_ghfp.Trainer(
            *one_network(settings), channels_last=True, dtype=settings.dtype
        )


class TorchMixskd(mcl_step.TorchSide):
    """`torch_mixskd.Trainer`, eager, in channels_last."""

    def __init__(self, settings: mcl_step.Settings, config):
        from experiments.benchmark import torch_mixskd

        self.rows = mcl_step.make_rows(settings)
        architecture, *others = one_network(settings)
        temperature, alpha = config.mixskd.temperature, config.mixskd.alpha
        self.trainer = torch_mixskd.Trainer(
            architecture,
            temperature,
            alpha,
            *others,
            mixtures=[kdjax_mixture(config, step) for step in range(2)],
            channels_last=True,
            dtype=settings.dtype,
        )


def kdjax_mixture(config, step: int) -> tuple[float, np.ndarray]:
    """Lambda, and the numbers of the partners, that kdjax draws at a step."""
    import jax

    from kdjax import losses
    from kdjax.training import step as training

    batch = {"index": np.arange(config.batch_size)}
    batch_and_key = training.step_batch(lambda constants, batch, *_: batch, config.seed)
    _, key = batch_and_key({}, batch, np.int32(step), 0)
    mixture = losses.draw_mixture(key, config.batch_size, alpha=config.mixskd.alpha)
    lam, order = jax.device_get(mixture)
    return float(lam), order.astype(np.int64)


def one_network(settings: mcl_step.Settings) -> tuple:
    """What trainers of one network take: its architecture, the optimizer, data and weights."""
    import torch

    from experiments.benchmark.torch_mcl import Architecture

    torch.set_num_threads(report.cores())
    sgd = dict(mcl_step.SGD) | {"lr": LEARNING_RATE}
    del sgd["learning_rate"]
    architecture = Architecture(*mcl_step.architecture(settings.network))
    data = (*mcl_step.make_data(), mcl_step.MEAN, mcl_step.STD)
    return architecture, sgd, data, mcl_step.fill


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=list(NETWORKS))
    parser.add_argument("--networks", nargs="*", help="teacher and student, or the network")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="per round and side, at least 2")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=USUAL)
    parser.add_argument("--output", default="experiments/results/benchmark/rows.txt")
    return parser.parse_args()


def main() -> None:
    options = parse()
    options.networks = options.networks or NETWORKS[options.row]
    names = dict.fromkeys(("kdjax", *options.sides))
    sides = {}
    for name in names:
        with mock.patch.dict(os.environ, KEPT if "kept" in name else {}):
            sides[name] = mcl_step.Worker(name, options, make_side)
    losses = {name: side.round(2)[1][:2] for name, side in sides.items()}
    print(f"losses of the first two steps: {losses}", flush=True)
    exact = {name: values for name, values in losses.items() if "bfloat16" not in name}
    mcl_step.same_losses(exact)
    times = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            times[name].append(side.round(options.steps)[0] / options.steps)
    peaks = ", ".join(f"{name} {side.close():.0f}" for name, side in sides.items())
    settings = mcl_step.Settings("", 0, options.batch_size, options.steps)
    lines = [
        report.command("rows"),
        f"{options.row}: {' -> '.join(options.networks)}, batch {options.batch_size}",
        report.machine("cpu", ("jax", "flax", "torch")),
        f"{options.rounds} rounds of {options.steps} steps per side, alternating, each side in a "
        "process of its own",
        "",
        *mcl_step.table(times, settings),
        f"most memory of the process, MiB: {peaks}",
    ]
    print("\n".join(lines))
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
