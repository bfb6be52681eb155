"""What takes part in training beside the loop: checks, reports and changes at the end of epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from kdjax.methods.base import EpochReport
from kdjax.parallel import fetch
from kdjax.runs import freed_memory
from kdjax.training.program import Program
from kdjax.training.step import TrainState


class Change(NamedTuple):
    """What training goes on with from the end of an epoch.

    Attributes:
      program: in place of the one before.
      state: of that program, numpy arrays.
      message: a line for the user.
    """

    program: Program
    state: TrainState
    message: str


def _accept(program: Program) -> None:
    del program


def _nothing(program: Program, state: TrainState, epoch: int) -> None:
    del program, state, epoch


def _unchanged(train_steps: Callable[..., Any]) -> Callable[..., Any]:
    return train_steps


def _goes_on(rows: Sequence[Mapping[str, float]]) -> None:
    del rows


@dataclasses.dataclass(frozen=True)
class Hook:
    """Functions that the loop calls; the defaults do nothing.

    Attributes:
      check: `program`, before training; raises `UserError` if the run could not be trained to its
        end.
      report: `(program, state, epoch) -> EpochReport | None`, after every epoch, counted from 1.
        `state` is on the devices.
      change: `(program, state, epoch) -> Change | None`, after the evaluation of every epoch but
        the last, before its checkpoint is saved.
      ends: `rows of metrics.jsonl -> line for the user | None`, before the first epoch and after
        every epoch: with a line, the run ends there, as after its last epoch.
      around: `train_steps -> train_steps`, what the loop calls in place of `Program.train_steps`.
    """

    check: Callable[[Program], None] = _accept
    report: Callable[[Program, TrainState, int], EpochReport | None] = _nothing
    change: Callable[[Program, TrainState, int], Change | None] = _nothing
    ends: Callable[[Sequence[Mapping[str, float]]], str | None] = _goes_on
    around: Callable[[Callable[..., Any]], Callable[..., Any]] = _unchanged


def _method_report(program: Program, state: TrainState, epoch: int) -> EpochReport | None:
    del epoch
    if program.method.epoch_report is None:
        return None
    return program.method.epoch_report(fetch(state.params), fetch(state.opt_state))


# Asks the method for its `epoch_report`.
METHOD_REPORT = Hook(report=_method_report)


def _give_back(program: Program, state: TrainState, epoch: int) -> None:
    del program, state, epoch
    freed_memory.give_back()


# Gives back memory after every epoch, where the process keeps it.
GIVES_BACK = Hook(report=_give_back)


def _trace(program: Program) -> None:
    batches = program.feed.train(0, 0)
    try:
        _, first = next(batches)
    finally:
        batches.close()
    constants = program.feed.train_constants()
    jax.eval_shape(program.train_steps, program.abstract_state(), constants, first)


# Traces a step before training, so that what a loss refuses is refused before.
TRACED = Hook(check=_trace)
