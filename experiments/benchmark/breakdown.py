"""Where the time of kdjax's MCL step goes on CPU: XLA's own trace, summed by kind of operation.

    python -m experiments.benchmark.breakdown --network resnet32 --steps 3

Names are XLA's: `transpose_copy_fusion` brings operands of kernel gradients into another layout and
computes the element-wise operations before them once more on the way; `convolution*` are the
convolutions, `ynn_fusion` reductions.
"""

import argparse
import collections
import gzip
import json
import sys
import tempfile
from pathlib import Path

import jax

from experiments.benchmark.mcl_step import KdjaxSide, Settings

# What encloses other events, or runs on Python's side.
_ENCLOSING = ("Thunk", "end: ", "$", "Pjit", "CommonPjRt", "Parse")


def traced_seconds(side: KdjaxSide, steps: int) -> collections.Counter:
    """Seconds per kind of operation in this many steps, summed over threads."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            side.round(steps)
        path = next(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    seconds = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and not event["name"].startswith(_ENCLOSING):
            seconds[event["name"].split(".")[0]] += event.get("dur", 0) / 1e6
    return seconds


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args(argv)
    side = KdjaxSide(Settings(options.network, 2, options.batch_size, options.steps))
    side.round(1)  # compiles
    seconds = traced_seconds(side, options.steps)
    total = sum(seconds.values())
    print(f"2 x {options.network}, batch {options.batch_size}, {jax.devices()[0].device_kind}")
    print(f"{'operation':<34} {'ms/step':>9} {'share':>8}")
    for name, spent in seconds.most_common(10):
        print(f"{name:<34} {1e3 * spent / options.steps:>9.1f} {100 * spent / total:>6.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
