"""Where the time of a kdjax step goes on CPU: XLA's own trace, summed by kind of operation.

    python -m experiments.benchmark.breakdown --network resnet32 --steps 3
    python -m experiments.benchmark.breakdown --row ghfp --library
    python -m experiments.benchmark.breakdown --row mixskd --batch_size 16

A step is MCL's with two networks, or one of `rows`. Names are XLA's: `transpose_copy_fusion` brings
operands of kernel gradients into another layout and computes the element-wise operations before
them once more on the way; `convolution*` are the convolutions, `ynn_fusion` reductions. Calls of
the library that `--library` asks for have its names: `convolution`, `input_gradient`,
`kernel_gradient`, and `moments` and `products`, the sums of BatchNorm.
"""

import argparse
import collections
import gzip
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import jax

from experiments.benchmark import rows
from experiments.benchmark.mcl_step import KdjaxSide, Settings

# What encloses other events, or runs on Python's side.
_ENCLOSING = ("Thunk", "end: ", "$", "Pjit", "CommonPjRt", "Parse")
# An instruction of a compiled program that calls the library, and which of its functions.
_CALL = re.compile(r'%?(\S+) = .*custom_call_target="kdjax_(\w+)_[0-9a-f]{16}"')


def traced_seconds(side: KdjaxSide, steps: int, calls: dict[str, str]) -> collections.Counter:
    """Seconds per kind of operation in this many steps, summed over threads.

    Args:
      side: compiled.
      steps: to trace.
      calls: names of operations that call the library -> its functions.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            side.round(steps)
        path = next(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    seconds = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and not event["name"].startswith(_ENCLOSING):
            called = calls.get(event["name"])
            kind = f"library: {called}" if called else event["name"].split(".")[0]
            seconds[kind] += event.get("dur", 0) / 1e6
    return seconds


def compile_step(side: KdjaxSide) -> dict[str, str]:
    """Compiles the side's step, and says which of its operations call the library."""
    indices = side.parallel.split(side.rows[: side.steps_per_dispatch])
    batches = side.parallel.shard({"index": indices})
    side.train_steps = side.train_steps.lower(side.state, side.constants, batches).compile()
    return dict(_CALL.findall(side.train_steps.as_text()))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", choices=["mcl", "ghfp", "mixskd"], default="mcl")
    parser.add_argument("--network", help="that of the row unless given; resnet32 of mcl")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--library", action="store_true", help="with KDJAX_CPU_KERNELS=1, else 0")
    options = parser.parse_args(argv)
    os.environ["KDJAX_CPU_KERNELS"] = str(int(options.library))
    if options.row == "mcl":
        network, name = options.network or "resnet32", "2 x "
        side = KdjaxSide(Settings(network, 2, options.batch_size, options.steps))
    else:
        network, name = options.network or rows.NETWORKS[options.row][0], ""
        options.networks = (network,)
        side = rows.make_side("kdjax", options)
    calls = compile_step(side)
    side.round(1)  # warm
    seconds = traced_seconds(side, options.steps, calls)
    total = sum(seconds.values())
    device = jax.devices()[0].device_kind
    print(f"{options.row}: {name}{network}, batch {options.batch_size}, {device}")
    print(f"{'operation':<34} {'ms/step':>9} {'share':>8}")
    for kind, spent in seconds.most_common(12):
        print(f"{kind:<34} {1e3 * spent / options.steps:>9.1f} {100 * spent / total:>6.1f} %")
    print(f"{'all':<34} {1e3 * total / options.steps:>9.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
