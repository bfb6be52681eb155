"""What the steps of two libraries on the same inputs share: one process per library, one line."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Mapping

import numpy as np

Make = Callable[[int, int], Callable[[], None]]


def main(description: str, makers: Mapping[str, Make], *, side: int, steps: int) -> None:
    """Prints milliseconds per step (median) and the peak of the process's memory.

    Args:
      description: of the command.
      makers: by library, `(batch, side) -> step`, a function that takes one step.
      side: of the images, unless the command says otherwise.
      steps: to time after the first one, likewise.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--of", choices=list(makers), required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=side)
    parser.add_argument("--steps", type=int, default=steps)
    flags = parser.parse_args()
    step = makers[flags.of](flags.batch, flags.side)
    first = _seconds(step)
    times = [_seconds(step) for _ in range(flags.steps)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{flags.of}: {1e3 * np.median(times):.0f} ms per step of {flags.batch} images of "
        f"{flags.side}x{flags.side} (first {first:.1f} s, {min(times):.2f} to {max(times):.2f} s), "
        f"peak {peak:.0f} MiB"
    )


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
