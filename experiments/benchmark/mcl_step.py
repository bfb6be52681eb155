"""Images per second of kdjax's MCL training step and of the same step in plain PyTorch.

    python -m experiments.benchmark.mcl_step
    python -m experiments.benchmark.mcl_step --network resnet8 --rounds 3 --steps 2
    python -m experiments.benchmark.mcl_step --sides "kdjax without products" "torch channels_last"

Both sides train the same networks (ResNet-32 twice unless told otherwise) with the same loss and
the same optimizer (SGD, Nesterov, weight decay) in float32, from the same weights, on batches taken
from the same uint8 images held in memory. A step is: gather the batch, normalize, forward, loss,
backward, update. Random crops and flips are left out on both sides. kdjax runs the very step of
`kdjax.training.step`, which also computes accuracies; PyTorch computes nothing but the loss.
Before any timing, all sides must report the same loss for two steps.

Rounds alternate between the sides (A B C A B C ...), so that a slow spell of the machine hits all
of them. Each side runs in a process of its own that sleeps while the others work, so that no thread
pool waits, spinning, beside another library's. (`--in_process` has all of them in
one process.) All cores are used by every side.
Leave the machine to the benchmark: PyTorch's threads wait for one another, and a core taken from
them may cost the sides differently. On a GPU, both sides may use TF32 for
convolutions.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
import zlib
from typing import NamedTuple

import numpy as np

from experiments.benchmark import report

NUM_CLASSES = 100
IMAGES = 6400
MEAN, STD = np.array([0.5071, 0.4865, 0.4409]), np.array([0.2673, 0.2564, 0.2762])
SGD = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
WITHOUT_PRODUCTS = "kdjax without products"  # kernel gradients by XLA on CPUs, too
WITH_LIBRARY = "kdjax with library"  # convolutions and sums compiled on this machine
SIDES = {
    "cpu": ("kdjax", "torch", "torch channels_last"),
    "gpu": ("kdjax", "torch", "torch.compile"),
}


class Settings(NamedTuple):
    """What is measured: the network, how many of it, the batch, and the steps of a round."""

    network: str
    networks: int
    batch_size: int
    steps: int
    dtype: str = "float32"


def make_config(settings: Settings):
    from kdjax import config as configs

    config = configs.base()
    config.method, config.dtype = "mcl", settings.dtype
    config.networks = (settings.network,) * settings.networks
    config.batch_size = settings.batch_size
    config.data.images_per_class = 2
    config.optimizer.update(SGD | {"schedule": "constant"})
    return config


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `[N, 32, 32, 3]` and labels `[N]`."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
    return images, (np.arange(IMAGES) % NUM_CLASSES).astype(np.int32)


def make_rows(settings: Settings) -> np.ndarray:
    """Image numbers `[steps, batch]` of a round: every class of a batch twice."""
    random = np.random.default_rng(1)
    classes = settings.batch_size // 2
    rows = []
    for _ in range(settings.steps):
        labels = random.permutation(NUM_CLASSES)[:classes]
        first = random.integers(0, IMAGES // NUM_CLASSES // 2, (2, classes))
        first[1] += IMAGES // NUM_CLASSES // 2  # another image of the same class
        rows.append((labels + NUM_CLASSES * first).reshape(-1))
    return np.array(rows, np.int32)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The start of a kernel or bias, by its name: He's normal, or a small normal for biases."""
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    scale = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[:-1]))
    return (scale * values).astype(np.float32)


class KdjaxSide:
    """`kdjax.training.step.train_step`, spread over all devices as the loop does it."""

    def close(self) -> None:
        """Nothing to end."""

    def __init__(self, settings: Settings, config=None):
        import jax

        from kdjax import methods
        from kdjax.data import ArraySplit, Dataset, preprocessing
        from kdjax.parallel import AXIS, Parallel
        from kdjax.training import optimizers
        from kdjax.training import step as training

        config = config or make_config(settings)
        self.rows = make_rows(settings)
        self.steps_per_dispatch = 1 if jax.default_backend() == "cpu" else settings.steps
        split = ArraySplit(*make_data())
        names = tuple(str(number) for number in range(NUM_CLASSES))
        dataset = Dataset("random", split, split, names, (32, 32, 3), MEAN, STD)
        method = methods.create(
            config, num_classes=NUM_CLASSES, axis_name=AXIS, train_labels=split.labels
        )
        tx = method.optimizer(optimizers.create(config, steps_per_epoch=1))
        self.parallel = Parallel(config.parallel, config.dtype)
        self.prepare = prepare = preprocessing.train_input(dataset, "none")
        self.train_steps = self.parallel.map(
            training.train_step(method, tx, prepare, config.seed), donate=True
        )
        key, shape = jax.random.key(0), dataset.image_shape
        state = jax.eval_shape(lambda key: training.init_state(method, tx, key, shape), key)
        state = jax.tree_util.tree_map_with_path(_start, state._replace(opt_state=()))
        state = state._replace(opt_state=tx.init(state.params))
        self.state = self.parallel.replicate(state)
        self.constants = self.parallel.replicate({"image": split.images, "label": split.labels})

    def round(self, steps: int) -> tuple[float, list[float]]:
        """Seconds and losses of this many steps."""
        metrics = []
        start = time.perf_counter()
        for first in range(0, steps, self.steps_per_dispatch):
            rows = self.rows[first : min(first + self.steps_per_dispatch, steps)]
            batches = self.parallel.shard({"index": self.parallel.split(rows)})
            self.state, values = self.train_steps(self.state, self.constants, batches)
            metrics.append(values["loss"])
        losses = np.concatenate([np.asarray(each) for each in metrics])
        np.asarray(self.state.step)
        return time.perf_counter() - start, losses.tolist()


def _start(path, leaf) -> np.ndarray:
    """A leaf of the state before the first step: weights by name, the rest as kdjax starts it."""
    names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
    if "params" in names and names[-1] in ("kernel", "bias") and not _is_norm(names):
        return fill("/".join(names[2:]), leaf.shape)
    value = 1 if names[-1] in ("scale", "var") else 0
    return np.full(leaf.shape, value, leaf.dtype)


def _is_norm(names: list[str]) -> bool:
    return names[-2].endswith(("bn", "bn1", "bn2"))


class TorchSide:
    """`torch_mcl.Trainer`, eager, in another memory format, or compiled."""

    def close(self) -> None:
        """Nothing to end."""

    def __init__(self, settings: Settings, **options):
        import torch

        from experiments.benchmark import torch_mcl

        torch.set_num_threads(report.cores())
        config = make_config(settings)
        sgd = dict(SGD)
        sgd["lr"] = sgd.pop("learning_rate")
        self.rows = make_rows(settings)
        self.trainer = torch_mcl.Trainer(
            torch_mcl.Architecture(*architecture(settings.network)),
            settings.networks,
            dict(config.mcl),
            sgd,
            (*make_data(), MEAN, STD),
            fill,
            dtype=settings.dtype,
            **options,
        )

    def round(self, steps: int) -> tuple[float, list[float]]:
        """Seconds and losses of this many steps."""
        start = time.perf_counter()
        losses = [self.trainer.step(row) for row in self.rows[:steps]]
        self.trainer.wait()
        return time.perf_counter() - start, [float(loss) for loss in losses]


def architecture(name: str) -> tuple:
    """The fields of `torch_mcl.Architecture` for a network that the PyTorch side can build.

    Raises:
      SystemExit: it cannot build this one.
    """
    from kdjax import models

    network = models.create(name, num_classes=NUM_CLASSES)
    if network == models.WideResNet(
        num_classes=NUM_CLASSES,
        depth=getattr(network, "depth", 16),
        widen_factor=getattr(network, "widen_factor", 1),
    ):
        widths = tuple(16 * network.widen_factor * 2**stage for stage in range(3))
        return ((network.depth - 4) // 6,) * 3, widths, 16, NUM_CLASSES, True
    same = models.CifarResNet(
        num_classes=network.num_classes,
        blocks=getattr(network, "blocks", ()),
        widths=getattr(network, "widths", ()),
        stem_width=getattr(network, "stem_width", 0),
        stem_relu=getattr(network, "stem_relu", True),
    )
    if network != same:
        raise SystemExit(f"{name}: the PyTorch side has ResNets of basic blocks and Wide ResNets")
    shape = tuple(network.blocks), tuple(network.widths), network.stem_width, NUM_CLASSES
    return *shape, False, network.stem_relu


def make_side(name: str, settings: Settings):
    if name == WITHOUT_PRODUCTS:
        from kdjax.models.convolution import convolve

        # The package's attribute of this name is the function; its module has the threshold.
        sys.modules[convolve.__module__].SMALLEST = sys.maxsize
    os.environ["KDJAX_CPU_KERNELS"] = str(int(name == WITH_LIBRARY))
    if name in ("kdjax", WITHOUT_PRODUCTS, WITH_LIBRARY):
        return KdjaxSide(settings)
    return TorchSide(settings, **report.TORCH_SIDES[name])


class Worker:
    """A side in a process of its own, asleep between rounds."""

    def __init__(self, name: str, settings, make=make_side):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = theirs, make, name, settings
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def round(self, steps: int) -> tuple[float, list[float]]:
        self.connection.send(steps)
        return self.connection.recv()

    def close(self) -> float:
        """Ends the process; returns the most memory that it held, in MiB."""
        self.connection.send(None)
        peak = self.connection.recv()
        self.process.join()
        return peak


def _serve(connection, make, name: str, settings) -> None:
    side = make(name, settings)
    while (steps := connection.recv()) is not None:
        connection.send(side.round(steps))
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def check_losses(sides: dict) -> list[float]:
    """Two steps from the same weights must give the same losses on all sides."""
    return same_losses({name: side.round(2)[1] for name, side in sides.items()})


def same_losses(losses: dict[str, list[float]]) -> list[float]:
    """The losses of kdjax, if those of all sides are the same.

    Raises:
      SystemExit: they are not.
    """
    for name, values in losses.items():
        # The second step's loss has gone through one update, and its rounding errors.
        for value, expected, tolerance in zip(values, losses["kdjax"], (1e-4, 1e-3), strict=True):
            if not abs(value / expected - 1) < tolerance:
                raise SystemExit(f"losses differ between the sides: {losses} (see {name})")
    return losses["kdjax"]


def table(times: dict[str, list[float]], settings: Settings) -> list[str]:
    """Per side: milliseconds per step and images per second, the ratio by the medians."""
    lines = [f"{'side':<20} {'min ms':>9} {'median ms':>10} {'images/s':>9} {'kdjax / it':>11}"]
    reference = statistics.median(times["kdjax"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        lines.append(
            f"{name:<20} {1e3 * min(seconds):>9.2f} {1e3 * median:>10.2f} "
            f"{settings.batch_size / median:>9.0f} {median / reference:>11.2f}"
        )
    return lines


def describe(settings: Settings, device: str, options: argparse.Namespace) -> list[str]:
    return [
        f"MCL step: {settings.networks} x {settings.network}, batch {settings.batch_size}, float32",
        "gather, normalize, forward, loss, backward, update; no random crops and flips",
        report.machine(device, ("jax", "flax", "torch")),
        f"{options.rounds} rounds of {settings.steps} steps per side, alternating, "
        + ("in one process" if options.in_process else "each side in a process of its own"),
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--networks", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="per round and side")
    parser.add_argument(
        "--sides",
        nargs="*",
        help=f"kdjax, any of PyTorch's, {WITHOUT_PRODUCTS!r} and {WITH_LIBRARY!r}",
    )
    parser.add_argument("--in_process", action="store_true", help="all sides in this process")
    parser.add_argument("--output", default="experiments/results/benchmark/mcl_step.txt")
    return parser.parse_args()


def main() -> None:
    # Two libraries share the GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    options = parse()
    for name in (WITHOUT_PRODUCTS, WITH_LIBRARY):
        if options.in_process and name in (options.sides or ()):
            raise SystemExit(f"{name!r} is for a process of its own, not --in_process")
    settings = Settings(
        options.network, options.networks, options.batch_size, max(options.steps, 2)
    )
    device = jax.devices()[0]
    names = options.sides or SIDES["cpu" if device.platform == "cpu" else "gpu"]
    make = make_side if options.in_process else Worker
    sides = {name: make(name, settings) for name in dict.fromkeys(["kdjax", *names])}
    losses = check_losses(sides)
    print(f"all sides agree on the losses of the first two steps: {losses}", flush=True)
    for side in sides.values():  # the kernels of a whole round, compiled and warm
        side.round(settings.steps)
    times = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            times[name].append(side.round(settings.steps)[0] / settings.steps)
    for side in sides.values():
        side.close()
    lines = [*describe(settings, device.device_kind, options), "", *table(times, settings)]
    print("\n".join(lines))
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
