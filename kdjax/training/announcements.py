"""The lines that a run prints at its start, after every epoch and at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import kdjax
from kdjax.methods.evaluation import Evaluation, RowEvaluation
from kdjax.runs.checkpoints import Checkpoints
from kdjax.runs.console import say
from kdjax.training import compile_time
from kdjax.training.program import Program, network_names


class Training:
    """Announces the training of a run, and measures its time.

    Args:
      program: the program at the start.
      step: the step from which training continues.
    """

    def __init__(self, program: Program, step: int):
        self._first_epoch = step // program.steps_per_epoch + 1
        self._epochs = program.config.epochs
        self._begin, self._compiled = time.monotonic(), compile_time.seconds()
        for line in opening(program, step):
            say(line)

    def close(self, checkpoints: Checkpoints, best: str, workdir: Path) -> None:
        """Prints the time, the best epoch, and where things are.

        Args:
          checkpoints: of the run, all finished.
          best: the metric that makes a checkpoint the best one.
          workdir: of the run.
        """
        if self._first_epoch <= self._epochs:
            compiling = duration(compile_time.seconds() - self._compiled)
            say(
                f"trained {_span(self._first_epoch, self._epochs)} in "
                f"{duration(time.monotonic() - self._begin)}, {compiling} of it compiling"
            )
        kept = checkpoints.best()
        if kept is not None:
            say(f"best checkpoint: step {kept[0]}, {best} {100 * kept[1]:.2f} %")
        files = sorted(f"{p.name}/" if p.is_dir() else p.name for p in workdir.iterdir())
        say(f"{workdir}: {', '.join(files)}")


def opening(program: Program, step: int) -> list[str]:
    """The lines about the devices, the data, the networks and the steps of a run.

    Args:
      program: the program at the start.
      step: the step from which training continues.
    """
    config, feed, dataset = program.config, program.feed, program.feed.dataset
    devices = program.parallel.device_count
    shape = "x".join(map(str, dataset.image_shape))
    total = config.epochs * program.steps_per_epoch
    lines = [
        f"kdjax {kdjax.__version__}, jax {jax.__version__}, {devices} x "
        f"{jax.devices()[0].device_kind}, {config.dtype}",
        f"{config.data.source}: {len(dataset.train.labels)} training and "
        f"{len(dataset.test.labels)} test images of {shape}, {dataset.num_classes} classes",
        f"{config.method}: {_networks(program)}",
        f"{_counted(config.epochs, 'epoch')} of {program.steps_per_epoch} steps of "
        f"{feed.images_per_step} images: {total} steps",
    ]
    if step >= total:
        return [*lines, f"already trained for {_counted(step // program.steps_per_epoch, 'epoch')}"]
    return [*lines, "compiling: the first steps take longer than those that follow"]


def epoch_line(
    row: Mapping[str, float], epochs: int, evaluation: Evaluation | RowEvaluation
) -> str:
    """The line about an epoch: step, learning rate, speed, loss and accuracies.

    Args:
      row: the metrics of the epoch.
      epochs: `config.epochs`.
      evaluation: of the method, which names the accuracy.
    """
    accuracy = evaluation.accuracy
    percents = [
        f"{name} {100 * row[f'{name}/{accuracy}']:.2f}"
        for name in [*network_names(row, accuracy), "ensemble"]
        if f"{name}/{accuracy}" in row
    ]
    accuracies = f"  {evaluation.label} % {'  '.join(percents)}" if percents else ""
    return (
        f"epoch {row['epoch']}/{epochs}  step {row['step']}  lr {row['learning_rate']:.4g}  "
        f"{row['images_per_second']:.0f} img/s  loss {row['train/loss']:.4f}{accuracies}"
    )


def _networks(program: Program) -> str:
    """The networks with their numbers of parameters, and how many the optimizer has in all."""
    state = program.abstract_state()
    described = []
    for index, spec in enumerate(program.specs):
        variables = program.method.variables(state.params, state.model_state, index)
        described.append(f"{spec.full_name} with {_count(variables['params'])} parameters")
    return f"{', '.join(described)}; {_count(state.params)} are trained"


def _count(tree: Any) -> str:
    return f"{sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)):,}"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _span(first: int, last: int) -> str:
    return f"epoch {first}" if first == last else f"epochs {first} to {last}"


def duration(seconds: float) -> str:
    """A duration in words, such as '1 h 3 min' or '7.2 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{minutes // 60} h {minutes % 60} min"
