"""Resumption of a run from its latest checkpoint."""

from __future__ import annotations

from pathlib import Path

from kdjax.errors import UserError
from kdjax.networks import metadata
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


def check_length(program: Program, workdir: Path) -> None:
    """Checks the number of steps of a run.

    Args:
      program: the program of the run.
      workdir: the directory of the run.

    Raises:
      UserError: there are more steps than 32-bit integers count, or the run has been trained for
        more epochs than its config asks for.
    """
    directory, epochs = workdir / "checkpoints", program.config.epochs
    if epochs * program.steps_per_epoch >= 2**31:
        raise UserError(
            f"config.epochs={epochs} of {program.steps_per_epoch} steps are more than 2147483647 "
            "steps; use fewer epochs"
        )
    if not saved(directory):
        return
    checkpoints = Checkpoints(directory, program.config.evaluation.best, read_only=True)
    step = checkpoints.latest_step() or 0
    checkpoints.close()
    if step > epochs * program.steps_per_epoch:
        raise UserError(
            f"config.epochs={epochs}: the run in --workdir={workdir} has been trained for "
            f"{step / program.steps_per_epoch:.4g} already; give as many, or use another --workdir"
        )
