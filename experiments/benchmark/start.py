"""Seconds from the start of a run's process to the end of its first step: first start, then again.

    python -m experiments.benchmark.start --config configs/mcl.py:digits
    python -m experiments.benchmark.start --starts 3 --config configs/mcl.py

Every start is `python -m kdjax.main` with the flags given, a new workdir, and one folder of
compiled programs, empty at first. A start ends with the first step. 'loading' is the time during
which compiled programs are read, or compiled, 'tracing' that of what jax makes of Python functions
otherwise. Python keeps its bytecode, as it does by default.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.benchmark import report

PARTS = ("imports", "data", "tracing", "loading", "first step", "other", "all")
_LOADING = "/jax/core/compile/backend_compile_duration"


def child(started: float, flags: list[str]) -> None:
    """Runs the command line to the end of its first step, and prints the seconds of its parts."""
    from kdjax.main import collect_seldom

    collect_seldom()
    import jax

    from kdjax import data
    from kdjax.cli.main import main
    from kdjax.parallel import Parallel
    from kdjax.training import compile_time, stages

    del stages  # imported here, for its time
    seconds = collections.Counter(imports=time.time() - started)
    compile_time.seconds()  # counts from here on

    loading = compile_time.Periods()

    def listen(event: str, duration: float, **details) -> None:
        del details
        if event == _LOADING:
            loading.add(time.monotonic(), duration)
            seconds["loading"] = loading.total

    jax.monitoring.register_event_duration_secs_listener(listen)
    load, mapped = data.load, Parallel.map

    def timed_load(*arguments, **options):
        begin = time.time()
        dataset = load(*arguments, **options)
        seconds["data"] += time.time() - begin
        return dataset

    def map_to_first_step(self, function, *, donate=False, **options):
        compiled = mapped(self, function, donate=donate, **options)
        return first_step(compiled, seconds, started) if donate else compiled

    data.load, Parallel.map = timed_load, map_to_first_step
    main(["kdjax", *flags])


def first_step(compiled, seconds: collections.Counter, started: float):
    """`compiled`, whose first call ends the process."""
    import jax

    from kdjax.training import compile_time

    def run(*arguments):
        result = compiled(*arguments)
        begin = time.time()
        seconds["tracing"] = compile_time.seconds() - seconds["loading"]
        jax.block_until_ready(result)
        seconds["first step"], seconds["all"] = time.time() - begin, time.time() - started
        seconds["other"] = 2 * seconds["all"] - seconds.total()
        print("".join(f"{seconds[part]:>11.1f}" for part in PARTS), file=sys.stderr, flush=True)
        os._exit(0)

    run.lower = compiled.lower
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--cache", help="a folder of compiled programs to keep")
    options, flags = parser.parse_known_args()
    print(report.command("start"))
    print(f"{report.machine('cpu')}\n\nstart{''.join(f'{part:>11}' for part in PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": options.cache or f"{folder}/cache"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(options.starts):
            command = f"from experiments.benchmark import start; start.child({time.time()}, "
            command += f"{[*flags, '--workdir', f'{folder}/run{number}']!r})"
            done = subprocess.run(
                [sys.executable, "-c", command],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            print(f"{number + 1:<5}{done.stderr.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
