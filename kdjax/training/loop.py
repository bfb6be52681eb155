"""The training loop: epochs with evaluation, metrics, checkpoints and preemption."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.config import plain
from kdjax.parallel import fetch
from kdjax.runs.checkpoints import Checkpoints
from kdjax.runs.console import Progress, say
from kdjax.runs.metrics import MetricsWriter, read
from kdjax.runs.wandb import writers
from kdjax.training import compile_time, first_step, optimizers, resumption
from kdjax.training.announcements import Training, epoch_line
from kdjax.training.finite import not_finite, not_finite_error
from kdjax.training.hooks import Hook
from kdjax.training.preemption import Preemption
from kdjax.training.program import Program
from kdjax.training.step import TrainState

# The first step of a dispatch, and its metrics on the devices.
_Dispatch = tuple[int, dict[str, jax.Array]]


def run(program: Program, workdir: Path, hooks: Sequence[Hook] = ()) -> dict[str, float]:
    """Trains to `config.epochs`, resuming from the workdir's latest checkpoint.

    Args:
      program: the program of a run without checkpoints.
      workdir: the run's directory, locked by this process.
      hooks: the hooks, called in this order.

    Returns:
      The evaluation metrics of the last epoch.

    Raises:
      UserError: the workdir cannot be used, or a loss is not finite.
      Preempted: a signal ended the training; the state was saved.
    """
    checkpoints = Checkpoints(workdir / "checkpoints", program.config.evaluation.best)
    constants, loading = program.feed.train_constants(), None
    if checkpoints.latest_step() is None:
        loading = first_step.loading(program, constants)
    program, step, state = resumption.start(program, workdir, checkpoints)
    announced = Training(program, step)
    if loading is not None:
        loading.result()
    writer = None
    if jax.process_index() == 0:
        config = program.config
        writer = MetricsWriter(workdir, step, writers(workdir, config.wandb, plain(config)))
    with Preemption() as preemption:
        rows = [row for row in read(workdir / "metrics.jsonl") if row["step"] <= step]
        loop = _Loop(program, hooks, checkpoints, writer, preemption, rows, constants)
        try:
            metrics = loop.run(program.parallel.replicate(state), step)
            announced.close(checkpoints, program.config.evaluation.best, workdir)
            return metrics
        finally:
            if writer is not None:
                writer.close()
            checkpoints.close()


class _Loop:
    """The state of the loop on the host, between dispatches to the devices."""

    def __init__(
        self,
        program: Program,
        hooks: Sequence[Hook],
        checkpoints: Checkpoints,
        writer: MetricsWriter | None,
        preemption: Preemption,
        rows: list[dict[str, float]],
        train_constants: Any,
    ):
        self.hooks = hooks
        self._use(program)
        self.config = program.config
        self.checkpoints = checkpoints
        self.writer = writer
        self.preemption = preemption
        self.rows = rows
        self.schedule = optimizers.learning_rate(program.config, program.steps_per_epoch)
        self.train_constants = train_constants
        self.test_constants = program.feed.constants("test")

    def _use(self, program: Program) -> None:
        self.program = program
        self.train_steps: Callable[..., Any] = program.train_steps
        for hook in self.hooks:
            self.train_steps = hook.around(self.train_steps)

    def run(self, state: TrainState, step: int) -> dict[str, float]:
        config, per_epoch = self.config, self.program.steps_per_epoch
        metrics = None
        for epoch in range(step // per_epoch, 0 if self._ends() else config.epochs):
            state, row = self._epoch(state, epoch, step)
            step, done = (epoch + 1) * per_epoch, epoch + 1
            self._check_finite(step, not_finite(state))
            metrics = None
            if done % config.evaluation.every_epochs == 0 or done == config.epochs:
                metrics = self._evaluate(state)
                self._check_finite(
                    step, [n for n, value in metrics.items() if not np.isfinite(value)]
                )
                row |= metrics
            may_be_best = self._report(state, row, done, evaluated=metrics is not None)
            self._write(row)
            ended = done == config.epochs or self._ends()
            if not ended:
                state = self._change(state, done)
            stop = self.preemption.requested(step) and not ended
            if done % config.checkpoint.every_epochs == 0 or ended or stop:
                self._save(step, state, metrics if may_be_best and metrics else {})
            if stop:
                self.checkpoints.wait()
                self.preemption.stop(step)
            if ended:
                break
        self.checkpoints.wait()
        return metrics or self._evaluate(state)

    def _ends(self) -> bool:
        """Whether a hook ends the run here."""
        lines = [line for hook in self.hooks if (line := hook.ends(self.rows)) is not None]
        for line in lines:
            say(line)
        return bool(lines)

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        return self.program.evaluate(state, self.test_constants)

    def _save(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
        self.checkpoints.save(step, fetch(state), metrics, self.program.metadata)

    def _report(
        self, state: TrainState, row: dict[str, float], epoch: int, *, evaluated: bool
    ) -> bool:
        """Adds the hooks' metrics to the row of an epoch.

        Args:
          state: the state at the end of the epoch.
          row: the row of the metrics files, which is changed in place.
          epoch: the epoch, counted from 1.
          evaluated: whether the epoch is evaluated; the reports' other parameters then are as well.

        Returns:
          Whether the epoch's checkpoint may become the best one.
        """
        may_be_best = True
        for hook in self.hooks:
            report = hook.report(self.program, state, epoch)
            if report is None:
                continue
            row |= report.metrics
            may_be_best &= report.may_be_best
            for prefix, params in report.other_params.items() if evaluated else ():
                params = self.program.parallel.replicate(params)
                metrics = self._evaluate(state._replace(params=params))
                row |= {f"{prefix}{name}": value for name, value in metrics.items()}
        return may_be_best

    def _change(self, state: TrainState, epoch: int) -> TrainState:
        """Applies the hooks' changes of the program, and returns the state of the new one."""
        for hook in self.hooks:
            change = hook.change(self.program, state, epoch)
            if change is not None:
                say(change.message)
                self._use(change.program)
                state = self.program.parallel.replicate(change.state)
        return state

    def _epoch(
        self, state: TrainState, epoch: int, step: int
    ) -> tuple[TrainState, dict[str, float]]:
        """Trains to the end of an epoch; returns the state and the means of the metrics."""
        per_epoch, per_step = self.program.steps_per_epoch, self.program.feed.images_per_step
        first = step - epoch * per_epoch
        progress = Progress(epoch + 1, self.config.epochs, per_epoch * per_step, first * per_step)
        pending: _Dispatch | None = None
        rows: list[dict[str, np.ndarray]] = []
        begin = time.monotonic() - compile_time.seconds()
        batches = self.program.feed.train(epoch, first)
        try:
            for steps, batch in batches:
                state, metrics = self.train_steps(state, self.train_constants, batch)
                # The host reads the previous dispatch while the device computes this one.
                self._collect(rows, pending)
                pending, step = (step, metrics), step + steps
                progress.advance(steps * per_step, rows[-1]["loss"][-1] if rows else None)
                # At the end of an epoch, evaluation and the row of metrics come first.
                if step < (epoch + 1) * per_epoch and self.preemption.requested(step):
                    self._collect(rows, pending)
                    self._check_finite(step, not_finite(state))
                    self._save(step, state, {})
                    self.checkpoints.wait()
                    self.preemption.stop(step)
            self._collect(rows, pending)
        finally:
            batches.close()
            progress.close()
        means = {name: float(np.mean(np.concatenate([r[name] for r in rows]))) for name in rows[0]}
        row = {f"train/{name}": value for name, value in means.items()}
        images, working = (per_epoch - first) * per_step, time.monotonic() - compile_time.seconds()
        return state, {
            "step": step,
            "epoch": epoch + 1,
            "learning_rate": float(self.schedule(step - 1)),
            "images_per_second": images / (working - begin),
            **row,
        }

    def _collect(self, rows: list[dict[str, np.ndarray]], pending: _Dispatch | None) -> None:
        """Fetches the metrics of a dispatch, and raises `UserError` if they are not finite."""
        if pending is None:
            return
        first_step, metrics = pending
        metrics = fetch(metrics)
        bad = {name: ~np.isfinite(values) for name, values in metrics.items()}
        steps = [int(flags.argmax()) for flags in bad.values() if flags.any()]
        if steps:
            at = min(steps)
            self._check_finite(first_step + at, [name for name, flags in bad.items() if flags[at]])
        rows.append(metrics)

    def _check_finite(self, step: int, names: Sequence[str]) -> None:
        """Raises `UserError` that names the values that are not finite at a step, if any."""
        if not names:
            return
        self.checkpoints.wait()
        raise not_finite_error(step, names, self.checkpoints.latest_step())

    def _write(self, row: dict[str, float]) -> None:
        """Writes an epoch's row to the metrics files, and prints a summary of it."""
        self.rows.append(row)
        if self.writer is not None:
            self.writer.write(row)
        say(epoch_line(row, self.config.epochs, self.program.method.evaluation))
