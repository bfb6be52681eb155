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


# Metrics that tell networks apart, their names for people, those that stand beside them where they
# are known, and the metric of every class.
_SHOWN: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("top1", "top-1", {"top5": "top-5"}, ""),
    ("miou", "mIoU", {}, "iou"),
    ("ap", "AP", {"ap50": "AP50", "ap75": "AP75", "voc07": "VOC 07"}, "ap"),
)


def show_accuracies(metrics: dict[str, float]) -> None:
    """Prints the accuracies among evaluation metrics, one line per name."""
    for accuracy, label, others, by_class in _SHOWN:
        end = f"/{accuracy}"
        names = [key.removesuffix(end) for key in metrics if key.endswith(end)]
        width = max(map(len, names), default=0) + 2
        for name in names:
            shown = {accuracy: label} | {
                k: v for k, v in others.items() if f"{name}/{k}" in metrics
            }
            values = [
                f"{text} {100 * metrics[f'{name}/{key}']:6.2f} %" for key, text in shown.items()
            ]
            say(f"{name:<{width}}{'  '.join(values)}")
            if by_class:
                _show_classes(metrics, f"{name}/{by_class}/")


def _show_classes(metrics: dict[str, float], prefix: str) -> None:
    """Prints a metric of the classes in percent, on one line."""
    classes = [
        f"{key.removeprefix(prefix)} {100 * value:.2f}"
        for key, value in metrics.items()
        if key.startswith(prefix)
    ]
    if classes:
        say(f"  {'  '.join(classes)}")
