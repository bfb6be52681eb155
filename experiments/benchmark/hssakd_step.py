"""What HSSAKD's student step costs: beside its parts, and beside the same step in plain PyTorch.

    python -m experiments.benchmark.hssakd_step
    python -m experiments.benchmark.hssakd_step --teacher resnet56 --student resnet20
    python -m experiments.benchmark.hssakd_step --teacher wrn_40_2 --student wrn_16_2 --sides

A step is: gather a batch of uint8 images held in memory, normalize, rotate by four angles, the
teacher's forward pass over all views in evaluation mode, the student's, loss, backward, update. All
in float32, with the loss and the optimizer of configs/hsakd.py; no random crops and flips. These
programs are measured:

    kdjax step      the very step of `kdjax.training.step`, which also computes accuracies
    kdjax teacher   its teacher's forward pass alone, on views that are there already
    kdjax student   the very step with the teacher's outputs given: all but that forward pass
    torch ...       the step in plain PyTorch (ResNets of basic blocks only), without accuracies

The steps start from the same weights, and before any timing all must report the same losses. The
teacher's weights are random, too: its time does not depend on them. Rounds alternate between the
programs (A B C D A B C D ...), so that a slow spell of the machine hits all of them. Each PyTorch
side has a process of its own that sleeps while the others work. Every program uses all cores; leave
the machine to the benchmark: PyTorch's threads wait for one another, and a core taken from them may
cost them more than it costs kdjax. On a GPU, both libraries may use TF32 for convolutions.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from experiments.benchmark import mcl_step, report
from experiments.benchmark.mcl_step import MEAN, NUM_CLASSES, STD

VIEWS = 4
TORCH_SIDES = {name: report.TORCH_SIDES[name] for name in ("torch", "torch channels_last")}


class Settings(NamedTuple):
    """What is measured: the networks, the images of a batch, their side, the steps of a round."""

    teacher: str
    student: str
    batch_size: int
    image_size: int
    steps: int
    dtype: str = "float32"


def make_config(settings: Settings):
    """That of configs/hsakd.py."""
    from experiments.benchmark.host_work import load_config

    config = load_config(f"configs/hsakd.py:cifar100,{settings.teacher},{settings.student}")
    config.batch_size, config.dtype = settings.batch_size, settings.dtype
    return config


def make_data(settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """uint8 images `[N, H, H, 3]` for all batches of a round, labels `[N]`, mean and std."""
    random = np.random.default_rng(0)
    count, side = settings.batch_size * settings.steps, settings.image_size
    images = random.integers(0, 256, (count, side, side, 3), np.uint8)
    return images, random.integers(0, NUM_CLASSES, count).astype(np.int32), MEAN, STD


def make_rows(settings: Settings) -> np.ndarray:
    """Image numbers `[steps, batch]` of a round: every image once."""
    count = settings.batch_size * settings.steps
    order = np.random.default_rng(1).permutation(count).astype(np.int32)
    return order.reshape(settings.steps, settings.batch_size)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The start of a kernel or bias, by its name.

    Small where a residual branch ends: BatchNorm in evaluation mode, with statistics that no image
    has changed, would let the teacher's feature maps double with every block.
    """
    scale = np.float32(0.3 if name.endswith("conv2/kernel") else 1)
    return scale * mcl_step.fill(name, shape)


class TorchSide:
    """`torch_hssakd.Trainer`, eager."""

    def __init__(self, settings: Settings, architectures, temperature: float, sgd: dict, options):
        import torch

        from experiments.benchmark import torch_hssakd

        torch.set_num_threads(report.cores())
        self.rows = make_rows(settings)
        self.trainer = torch_hssakd.Trainer(
            *(torch_hssakd.Architecture(*each) for each in architectures),
            temperature,
            sgd,
            make_data(settings),
            fill,
            dtype=settings.dtype,
            **options,
        )

    def round(self) -> tuple[float, list[float]]:
        """Seconds and losses of a step with each of the rows."""
        start = time.perf_counter()
        losses = [self.trainer.step(row) for row in self.rows]
        self.trainer.wait()
        return time.perf_counter() - start, [float(loss) for loss in losses]


class Worker:
    """A PyTorch side in a process of its own, asleep between rounds."""

    def __init__(self, *arguments):
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, _start_side, arguments)

    def round(self) -> tuple[float, list[float]]:
        return self.pool.submit(_round_of_side).result()

    def close(self) -> None:
        self.pool.shutdown()


_side: list[TorchSide] = []  # of this process


def _start_side(*arguments) -> None:
    _side.append(TorchSide(*arguments))


def _round_of_side() -> tuple[float, list[float]]:
    return _side[0].round()


def torch_arguments(settings: Settings, config) -> tuple:
    """What `TorchSide` is given before its options: the networks and optimizer of the config."""
    networks = settings.teacher, settings.student
    architectures = [mcl_step.architecture(network) for network in networks]
    optimizer = config.optimizer
    sgd = {name: optimizer[name] for name in ("momentum", "nesterov", "weight_decay")}
    sgd["lr"] = optimizer.learning_rate
    return settings, architectures, config.hssakd.temperature, sgd


def torch_workers(settings: Settings, config, names: list[str]) -> dict[str, Worker]:
    """The PyTorch sides of these names."""
    if not names:
        return {}
    shared = torch_arguments(settings, config)
    return {name: Worker(*shared, TORCH_SIDES[name]) for name in names}


def check_losses(losses: dict[str, list[float]]) -> None:
    """The first two steps from the same weights must give the same losses on all sides.

    Raises:
      SystemExit: they do not.
    """
    expected = losses["kdjax step"]
    for name, values in losses.items():
        # The second step's loss has gone through one update, and its rounding errors.
        for value, reference, tolerance in zip(values, expected, (1e-4, 1e-3), strict=True):
            if not abs(value / reference - 1) < tolerance:
                raise SystemExit(f"losses differ between the sides: {losses} (see {name})")


def report_losses(losses: dict[str, list[float]]) -> list[str]:
    """A line per side: the losses of the first two steps, and how far they are from kdjax's."""
    lines = [f"{'losses of the first two steps':<30} {'relative differences':>42}"]
    expected = losses["kdjax step"]
    for name, values in losses.items():
        away = (abs(value / each - 1) for value, each in zip(values, expected, strict=True))
        numbers = [*(f"{value:.6f}" for value in values), *(f"{each:.1e}" for each in away)]
        lines.append(f"{name:<24}" + "".join(f"{number:>12}" for number in numbers))
    return lines


def table(times: dict[str, list[float]], settings: Settings) -> list[str]:
    """Per program: milliseconds per step, images per second, and the step's time over its own."""
    lines = [f"{'program':<20} {'min ms':>9} {'median ms':>10} {'images/s':>9} {'kdjax / it':>11}"]
    reference = statistics.median(times["kdjax step"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        lines.append(
            f"{name:<20} {1e3 * min(seconds):>9.2f} {1e3 * median:>10.2f} "
            f"{settings.batch_size / median:>9.0f} {median / reference:>11.2f}"
        )
    return lines


def ratios(times: dict[str, list[float]]) -> list[str]:
    """The step's time over that of its parts together, and over PyTorch's."""
    step = times["kdjax step"]
    parts = list(zip(times["kdjax teacher"], times["kdjax student"], strict=True))
    others = {"teacher + student": parts}
    others |= {name: [(each,) for each in times[name]] for name in times if name in TORCH_SIDES}
    lines = [f"{'time of the step over':<24} {'minima':>9} {'medians':>9} {'rounds':>9}"]
    for name, rounds in others.items():
        found = [
            reduce(step) / sum(map(reduce, zip(*rounds, strict=True)))
            for reduce in (min, statistics.median)
        ]
        # Of programs that ran one after the other, which a slow spell changes least.
        pairs = zip(step, rounds, strict=True)
        found.append(statistics.median(own / sum(other) for own, other in pairs))
        lines.append(f"{name:<24}" + "".join(f" {value:>9.3f}" for value in found))
    return lines


def describe(settings: Settings, device: str, rounds: int) -> list[str]:
    side, batch = settings.image_size, settings.batch_size
    return [
        f"HSSAKD student step: {settings.teacher} -> {settings.student}, batch {batch} "
        f"({VIEWS * batch} views of {side}x{side}), {NUM_CLASSES} classes, float32",
        "gather, normalize, rotate, teacher, student, loss, backward, update; no random crops and "
        "flips",
        report.machine(device, ("jax", "flax", "torch")),
        f"{rounds} rounds of {settings.steps} steps per program, alternating; "
        "kdjax and each PyTorch side in a process of its own",
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="resnet20")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--batch_size", type=int, default=64, help="images; each has four views")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="per round and program")
    parser.add_argument(
        "--sides", nargs="*", choices=TORCH_SIDES, default=TORCH_SIDES, help="of PyTorch, or none"
    )
    parser.add_argument("--output", default="experiments/results/benchmark/hssakd_step.txt")
    return parser.parse_args()


def main() -> None:
    # Two libraries share the GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from experiments.benchmark import kdjax_hssakd

    options = parse()
    settings = Settings(
        options.teacher,
        options.student,
        options.batch_size,
        options.image_size,
        max(options.steps, 2),
    )
    if jax.device_count() > 1:
        raise SystemExit("the benchmark is of one device; hide the others (CUDA_VISIBLE_DEVICES=0)")
    config = make_config(settings)
    workers = torch_workers(settings, config, list(options.sides))
    kdjax = kdjax_hssakd.Sides(config, make_data(settings), make_rows(settings), NUM_CLASSES, fill)
    teacher = kdjax.teacher()
    programs = {
        "kdjax step": kdjax.step(),
        "kdjax teacher": teacher,
        "kdjax student": kdjax.student(teacher.outputs()),
        **workers,
    }
    # The first round compiles, and warms up.
    losses = {name: program.round()[1][:2] for name, program in programs.items()}
    del losses["kdjax teacher"]
    check_losses(losses)
    first = report_losses(losses)
    print("\n".join(first), flush=True)
    for program in programs.values():
        program.round()
    times = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, program in programs.items():
            times[name].append(program.round()[0] / settings.steps)
    for worker in workers.values():
        worker.close()
    lines = [*describe(settings, jax.devices()[0].device_kind, options.rounds), ""]
    lines += [*first, "", *table(times, settings), "", *ratios(times)]
    print("\n".join(["", *lines]))
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
