"""What a job of the command line is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from absl.flags import FlagValues

from kdjax.cli.flags import Flag
from kdjax.registry import Registry
from kdjax.runs.console import say


class Job(NamedTuple):
    """A job of the command line.

    Attributes:
      run: does it, with the parsed flags.
      help: what it does.
      flags: that it takes, besides `cli.flags.COMMON`.
      required: those of them without which it does nothing.
    """

    run: Callable[[FlagValues], None]
    help: str
    flags: tuple[Flag, ...]
    required: tuple[Flag, ...] = ()


JOBS: Registry[Job] = Registry("job", "--job")


def show_accuracies(metrics: dict[str, float]) -> None:
    """Prints the accuracies among evaluation metrics, a line for each name."""
    names = [key.removesuffix("/top1") for key in metrics if key.endswith("/top1")]
    width = max(map(len, names)) + 2
    for name in names:
        top5 = metrics.get(f"{name}/top5")
        more = "" if top5 is None else f"  top-5 {100 * top5:6.2f} %"
        say(f"{name:<{width}}top-1 {100 * metrics[f'{name}/top1']:6.2f} %{more}")
