"""Host work between dispatches, as a share of the step.

    python -m experiments.benchmark.host_work --config configs/mcl.py:digits --steps 40

Takes the loop's own parts apart: making a dispatch's batches, calling the compiled step (which
returns before the device is done), and looking at the metrics of a dispatch that is done. What is
left of the wall time is waiting for the device.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import jax
import numpy as np

from kdjax.parallel import fetch
from kdjax.training.building import build
from kdjax.training.program import Program


def load_config(argument: str):
    """The config of `FILE.py[:ARGUMENTS]`."""
    path, _, rest = argument.partition(":")
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(rest) if rest else module.get_config()


def measure(run: Program, steps: int) -> dict[str, list[float]]:
    """Seconds per dispatch of every part, the first dispatches (compilation) left out."""
    state, constants = run.parallel.replicate(run.init_state()), run.feed.train_constants()
    parts = {"batches": [], "call": [], "wait": [], "metrics": []}
    epoch, feed = 0, iter(())
    for number in range(steps + 2):
        begin = time.perf_counter()
        item = next(feed, None)
        if item is None:
            feed, epoch = run.feed.train(epoch, 0), epoch + 1
            item = next(feed)
        made = time.perf_counter()
        state, metrics = run.train_steps(state, constants, item[1])
        called = time.perf_counter()
        jax.block_until_ready((state, metrics))
        ready = time.perf_counter()
        all(np.isfinite(values).all() for values in fetch(metrics).values())
        done = time.perf_counter()
        if number >= 2:
            for name, seconds in zip(
                parts, (made - begin, called - made, ready - called, done - ready), strict=True
            ):
                parts[name].append(seconds)
    return parts


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/mcl.py:digits")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--network", help="instead of the config's networks, twice")
    parser.add_argument("--batch_size", type=int)
    arguments = parser.parse_args(argv)
    if not Path(arguments.config.partition(":")[0]).exists():
        parser.error(f"no such config file: {arguments.config}")
    config = load_config(arguments.config)
    with config.unlocked():
        if arguments.network:
            config.networks = (arguments.network,) * 2
        if arguments.batch_size:
            config.batch_size = arguments.batch_size
            config.data.images_per_class = arguments.batch_size // 10
    parts = measure(build(config), arguments.steps)
    totals = {name: float(np.sum(values)) for name, values in parts.items()}
    wall = sum(totals.values())
    print(f"{' '.join(config.networks)}, batch {config.batch_size}, {jax.devices()[0].device_kind}")
    for name, seconds in totals.items():
        share = 100 * seconds / wall
        print(f"{name:<8} {1e3 * seconds / arguments.steps:9.3f} ms/step {share:6.2f} %")
    print(f"host     {100 * (wall - totals['wait']) / wall:.2f} % of the step")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
