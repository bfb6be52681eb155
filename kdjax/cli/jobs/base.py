"""Jobs of the command line: their type and registry."""

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
      run: runs the job with the parsed flags.
      help: a description for `--help`.
      flags: the flags of the job, besides `cli.flags.COMMON`.
      required: those of the flags that must be given.
    """

    run: Callable[[FlagValues], None]
    help: str
    flags: tuple[Flag, ...]
    required: tuple[Flag, ...] = ()


JOBS: Registry[Job] = Registry("job", "--job")


def show_accuracies(metrics: dict[str, float]) -> None:
    """Prints the accuracies among evaluation metrics, one line per name."""
    for accuracy, label in (("top1", "top-1"), ("miou", "mIoU")):
        end = f"/{accuracy}"
        names = [key.removesuffix(end) for key in metrics if key.endswith(end)]
        width = max(map(len, names), default=0) + 2
        for name in names:
            top5 = metrics.get(f"{name}/top5")
            more = "" if top5 is None else f"  top-5 {100 * top5:6.2f} %"
            say(f"{name:<{width}}{label} {100 * metrics[f'{name}/{accuracy}']:6.2f} %{more}")
            _show_classes(metrics, f"{name}/iou/")


def _show_classes(metrics: dict[str, float], prefix: str) -> None:
    """Prints the intersections over union of the classes, on one line."""
    classes = [
        f"{key.removeprefix(prefix)} {100 * value:.2f}"
        for key, value in metrics.items()
        if key.startswith(prefix)
    ]
    if classes:
        say(f"  {'  '.join(classes)}")
