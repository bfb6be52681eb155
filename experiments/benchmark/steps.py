"""The training step of every registered method: its speed, and what it costs.

    python -m experiments.benchmark
    python -m experiments.benchmark --methods mcl mixskd --network resnet32 --batch_size 128
    python -m experiments.benchmark --smoke
    python -m experiments.benchmark --methods detection --network resnet18 --batch_size 4

Each method trains as its loop does it, on random 32x32 images of 100 classes, with networks of one
kind and teachers of random weights; pruning methods ('ghfp') train with cross entropy. A method
runs in a process of its own. Beside PyTorch: `mcl_step`, `hssakd_step`, `segmentation_step` and
`detection_step`.

FLOP/s are XLA's count of a step's operations over its time; the ceiling is a matrix product of the
same machine, measured by XLA, too. 'host' is the share of the step in which the device waits.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from experiments.benchmark import random_data, report

COLUMNS = (
    ("method", "<24", ""),
    ("ms", ">9", ".1f"),
    ("images_per_s", ">13", ".0f"),
    ("compile_s", ">10", ".1f"),
    ("peak_mb", ">8", ".0f"),
    ("gflops_per_s", ">13", ".1f"),
    ("of_ceiling", ">11", ".1%"),
    ("host", ">7", ".1%"),
)


class Settings(NamedTuple):
    """What every method trains: networks of this kind, images of this side, so many at a time."""

    network: str
    batch_size: int
    side: int
    classes: int
    steps: int


SMOKE = Settings("resnet8", 8, 8, 4, 2)

# What methods need besides what their registration says.
NEEDS: dict[str, dict] = {
    "hssakd_student": {"teacher.method": "hssakd_teacher"},
    "one": {"shared_stages": 1},
    "cl_ilr": {"shared_stages": 1},
}
STARTED = ("linear_probe",)  # methods of a network that has been trained


def make_config(name: str, settings: Settings, folder: Path):
    """The config of a method, or of a pruning method with cross entropy."""
    from kdjax import config as configs
    from kdjax import methods, networks, pruning
    from kdjax.methods import METHODS
    from kdjax.training import teachers

    config, pruned = configs.base(), name in pruning.METHODS
    method = METHODS["cross_entropy" if pruned else name]
    methods.use(config, method.name)
    for setting, need in method.data.items():
        config.data[setting] = max(config.data[setting], need.at_least)
    config.networks = (settings.network,) * max(2 if name == "mcl" else 1, method.networks)
    config.batch_size, config.epochs = settings.batch_size, 10
    config.update_from_flattened_dict(NEEDS.get(name, {}))
    config.update_from_flattened_dict(random_data.settings_of(method, settings, folder))
    if pruned:
        config.pruning.method = name
    size = (settings.side, settings.side)
    if methods.needs_teacher(config):
        config.teacher.network = settings.network
        spec = teachers.abstract_teacher(config, settings.classes).spec
        config.teacher.checkpoint = write_network(spec, size, folder / "teacher")
    if name in STARTED:
        spec = networks.NetworkSpec(settings.network, settings.classes, networks.InputSpec(size))
        config.start.checkpoint = write_network(spec, size, folder / "start")
    return config


def write_network(spec, size: tuple[int, int], folder: Path) -> str:
    """Saves a network of random weights; returns its folder."""
    import jax

    from kdjax import networks

    variables = jax.jit(spec.build().init)(jax.random.key(0), np.zeros((1, *size, 3), np.float32))
    networks.save(folder, networks.Network(spec, jax.device_get(variables)), {})
    return str(folder)


def measure(name: str, settings: Settings) -> dict:
    """The figures of a method's step."""
    import jax

    from experiments.benchmark import host_work
    from kdjax.training.building import build

    with tempfile.TemporaryDirectory() as folder:
        run = build(make_config(name, settings, Path(folder)))
        state, constants = run.parallel.replicate(run.init_state()), run.feed.train_constants()
        batches = next(run.feed.train(0, 0))[1]
        start = time.perf_counter()
        compiled = run.train_steps.lower(state, constants, batches).compile()
        seconds = time.perf_counter() - start
        flops, memory = operations(run, state, constants, batches), compiled.memory_analysis()
        run = dataclasses.replace(run, train_steps=compiled)
        parts = {k: np.array(v) for k, v in host_work.measure(run, settings.steps).items()}
    dispatch = float(np.median(sum(parts.values())))
    steps = jax.tree.leaves(batches)[0].shape[1]
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return {
        "method": name,
        "ms": 1e3 * dispatch / steps,
        "images_per_s": settings.batch_size * steps / dispatch,
        "compile_s": seconds,
        "peak_mb": (peak - memory.alias_size_in_bytes) / 2**20,
        "gflops_per_s": flops / dispatch / 1e9,
        "of_ceiling": flops / dispatch / ceiling(),
        "host": 1 - float(np.median(parts["wait"])) / dispatch,
    }


def operations(run, *arguments) -> float:
    """XLA's count of a dispatch's operations, with convolutions that it knows."""
    with mock.patch.dict(os.environ, {"KDJAX_CPU_KERNELS": "0"}):
        run = run.with_compactions(run.compactions)  # functions that have not been traced
        return run.train_steps.lower(*arguments).cost_analysis()["flops"]


def ceiling(size: int = 1024) -> float:
    """Operations per second of a matrix product."""
    import jax

    first, second = jax.random.normal(jax.random.key(0), (2, size, size))
    product = jax.jit(lambda a, b: a @ b)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        product(first, second).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(times)


def _measured(name: str, settings: Settings) -> dict:
    from kdjax.errors import UserError

    try:
        return measure(name, settings)
    except UserError as error:  # it needs another network
        return {"method": name, "refused": str(error)}
    except Exception:
        return {"method": name, "failed": traceback.format_exc()}


def line(row: dict) -> str:
    """A row of the table."""
    if "refused" in row:
        return f"{row['method']:<24} {row['refused']}"
    if "failed" in row:
        return f"{row['method']:<24} failed: {row['failed'].strip().splitlines()[-1]}"
    return "".join(f"{row[name]:{form}}" for name, form in formats())


def formats() -> list[tuple[str, str]]:
    """Format specifications of the columns."""
    return [(name, width + kind) for name, width, kind in COLUMNS]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", help="all that are registered unless given")
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny images, batches and rounds")
    parser.add_argument("--output", default="experiments/results/benchmark/steps.txt")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    from kdjax.methods import METHODS

    settings = Settings(options.network, options.batch_size, 32, 100, options.steps)
    settings = SMOKE._replace(network=options.network) if options.smoke else settings
    images = f"{settings.side}x{settings.side}"
    lines = [
        f"{settings.network}, batch {settings.batch_size}, images {images}, float32",
        report.machine("cpu"),
        "",
        "".join(f"{name:{width}}" for name, width, _ in COLUMNS),
    ]
    print("\n".join(lines), flush=True)
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in options.methods or list(METHODS):
            rows.append(pool.apply(_measured, (name, settings)))
            lines.append(line(rows[-1]))
            print(lines[-1], flush=True)
    report.write(lines, options.output)
    Path(options.output).with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    return int(any("failed" in row for row in rows))
