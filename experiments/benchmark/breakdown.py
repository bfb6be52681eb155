"""Where the time of kdjax's MCL step goes: its parts compiled and timed one by one.

    python -m experiments.benchmark.breakdown --network resnet32 --rounds 5

Each part contains the ones before it: gather and normalise; forward pass and loss; with gradients;
the whole step with its update. Rounds alternate between the parts. Parts fuse differently alone
than in the whole step, so differences between rows are shares, not exact costs.
"""

import argparse
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from experiments.benchmark.mcl_step import NUM_CLASSES, KdjaxSide, Settings, make_config
from kdjax import methods
from kdjax.parallel import compiler_options


def make_parts(settings: Settings) -> dict:
    """Name -> function without arguments that runs the part once and waits for it."""
    side = KdjaxSide(settings)
    method = methods.create(make_config(settings), num_classes=NUM_CLASSES, axis_name=None)
    state = jax.tree.map(jnp.array, side.state)
    constants = jax.tree.map(jnp.asarray, side.constants)
    index = jnp.asarray(side.rows[0])
    key, positions = jax.random.key(0), jnp.arange(settings.batch_size)
    options = compiler_options()

    def gather(constants, index):
        return side.prepare(constants, {"index": index}, key, positions)

    def forward(params, model_state, constants, index):
        return method.loss(params, model_state, gather(constants, index), key)

    gathered = jax.jit(gather, compiler_options=options)
    run_forward = jax.jit(forward, compiler_options=options)
    run_backward = jax.jit(jax.value_and_grad(forward, has_aux=True), compiler_options=options)
    arguments = (state.params, state.model_state, constants, index)
    return {
        "gather, normalise": lambda: jax.block_until_ready(gathered(constants, index)),
        "+ forward, loss": lambda: jax.block_until_ready(run_forward(*arguments)),
        "+ backward": lambda: jax.block_until_ready(run_backward(*arguments)),
        "+ update (whole step)": lambda: side.round(1),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    parts = make_parts(Settings(options.network, 2, options.batch_size, 2))
    times = {name: [] for name in parts}
    for number in range(options.rounds + 1):
        for name, part in parts.items():
            begin = time.perf_counter()
            part()
            if number:  # the first round compiles
                times[name].append(time.perf_counter() - begin)
    print(f"2 x {options.network}, batch {options.batch_size}, {jax.devices()[0].device_kind}")
    before = 0.0
    whole = statistics.median(times["+ update (whole step)"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        share = 100 * (median - before) / whole
        print(f"{name:<22} {1e3 * median:9.1f} ms   adds {share:5.1f} % of the step")
        before = median
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
