"""Resumption of a run from its latest checkpoint."""

from __future__ import annotations

from pathlib import Path

from kdjax.errors import UserError
from kdjax.networks import metadata
from kdjax.runs import metrics as metric_files
from kdjax.runs.checkpoints import Checkpoints, saved
from kdjax.runs.console import say
from kdjax.training.program import Program
from kdjax.training.step import TrainState


def start(
    program: Program, workdir: Path, checkpoints: Checkpoints
) -> tuple[Program, int, TrainState]:
    """The program, the step and the state from which training continues.

    Args:
      program: the program of a run without checkpoints.
      workdir: the directory of the run.
      checkpoints: the checkpoints in `workdir`.

    Returns:
      The program for the networks of the latest checkpoint, its step, and its state as numpy
      arrays; without a checkpoint the given program, 0 and the initial state.

    Raises:
      UserError: the latest checkpoint cannot be read, or belongs to another run.
    """
    if checkpoints.latest_step() is None:
        return program, 0, program.init_state()
    loaded = checkpoints.load()
    step = loaded.step
    program = program.with_compactions(metadata.compactions_of(loaded.metadata))
    state = loaded.fitted(program.abstract_state())
    say(f"resumed from step {step} (epoch {step / program.steps_per_epoch:.2f}) of {workdir}")
    return program, step, state


def check_length(program: Program, workdir: Path) -> bool:
    """Checks the number of steps of a run.

    Args:
      program: the program of the run.
      workdir: the directory of the run.

    Returns:
      Whether all of them have been made: there is nothing to train.

    Raises:
      UserError: there are more steps than 32-bit integers count, or the run has been trained for
        more epochs than its config asks for.
    """
    epochs, per_epoch = program.config.epochs, program.steps_per_epoch
    if epochs * per_epoch >= 2**31:
        raise UserError(
            f"config.epochs={epochs} of {per_epoch} steps are more than 2147483647 steps; use "
            "fewer epochs"
        )
    step = latest_step(workdir, program.config.evaluation.best)
    row = metric_files.last(workdir / "metrics.jsonl") if step else None
    trained = max(step, row["step"] if row else 0)  # of a run that was killed, rows may be ahead
    if trained > epochs * per_epoch:
        raise UserError(
            f"config.epochs={epochs}: the run in --workdir={workdir} has been trained for "
            f"{trained / per_epoch:.4g} already; give as many, or use another --workdir"
        )
    return step == epochs * per_epoch


def latest_step(workdir: Path, best: str) -> int:
    """The step of a run's latest checkpoint; 0 without one.

    Args:
      workdir: the directory of the run.
      best: the metric that makes a checkpoint the best one.

    Raises:
      UserError: the checkpoints cannot be read.
    """
    directory = workdir / "checkpoints"
    if not saved(directory):
        return 0
    checkpoints = Checkpoints(directory, best, read_only=True)
    step = checkpoints.latest_step() or 0
    checkpoints.close()
    return step
