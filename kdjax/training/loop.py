"""The loop: epoch after epoch, with evaluation, metrics, checkpoints and preemption."""

import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax.compaction import history as compactions
from kdjax.errors import UserError
from kdjax.parallel import fetch
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from kdjax.runs.metrics import MetricsWriter, Progress, say
from kdjax.training import optimizers, shrinking, teachers
from kdjax.training.preemption import Preemption
from kdjax.training.program import Run, network_names
from kdjax.training.step import TrainState


def train(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Trains to `config.epochs`, going on from the workdir's latest checkpoint.

    A teacher that is to be trained first is trained in the workdir's subdirectory 'teacher'.

    Returns:
      The evaluation metrics of the last epoch.

    Raises:
      UserError: settings, data or workdir that cannot be used; a loss that is not finite.
      Preempted: SIGTERM came; the state was saved.
    """
    workdirs.check(workdir, config)
    teacher = teachers.config_of_teacher(config)
    if teacher is not None and not teachers.finished(teacher, teachers.directory(workdir)):
        teachers.check(config)
        say(f"teacher {teacher.networks[0]}: {teachers.directory(workdir)}")
        train(teacher, teachers.directory(workdir))
        say(f"student {config.networks[0]}: {workdir}")
    run = Run(config, workdir)
    run.check_best()
    shrinking.check(run)
    with workdirs.locked(workdir):
        return _train(run, workdir)


def _train(run: Run, workdir: Path) -> dict[str, float]:
    config = run.config
    workdirs.claim(workdir, config)
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.best)
    step = 0
    if checkpoints.latest_step() is None:
        compactions.forget(workdir, -1)
        if run.compactions:
            compactions.write(workdir, step, run.compactions)
        state = run.init_state()
    else:
        compactions.forget(workdir, checkpoints.latest_step())
        run.build(compactions.read(workdir, checkpoints.latest_step()))
        step, state = checkpoints.restore(run.abstract_state())
        say(f"resumed from step {step} (epoch {step / run.steps_per_epoch:.2f}) of {workdir}")
    writer = MetricsWriter(workdir, step) if jax.process_index() == 0 else None
    with Preemption() as preemption:
        loop = _Loop(run, workdir, checkpoints, writer, preemption)
        try:
            return loop.run(run.parallel.replicate(state), step)
        finally:
            if writer is not None:
                writer.close()
            checkpoints.close()


class _Loop:
    """Epoch after epoch; what is here runs on the host between dispatches."""

    def __init__(
        self,
        run: Run,
        workdir: Path,
        checkpoints: Checkpoints,
        writer: MetricsWriter | None,
        preemption: Preemption,
    ):
        self.run_ = run
        self.workdir = workdir
        self.config = run.config
        self.checkpoints = checkpoints
        self.writer = writer
        self.preemption = preemption
        self.schedule = optimizers.learning_rate(run.config, run.steps_per_epoch)
        self.train_constants = run.feed.constants("train")
        self.test_constants = run.feed.constants("test")

    def run(self, state: TrainState, step: int) -> dict[str, float]:
        config, per_epoch = self.config, self.run_.steps_per_epoch
        metrics = None
        for epoch in range(step // per_epoch, config.epochs):
            state, row = self._epoch(state, epoch, step)
            step, done = (epoch + 1) * per_epoch, epoch + 1
            metrics = None
            if done % config.evaluation.every_epochs == 0 or done == config.epochs:
                metrics = self.run_.evaluate(state, self.test_constants)
                row |= metrics
            complete = self._inspect(state, row, others=metrics is not None)
            self._report(row)
            if done in config.pruning.shrink_epochs and done < config.epochs:
                state = self._shrink(state, step)
            stop = self.preemption.requested(step) and done < config.epochs
            if done % config.checkpoint.every_epochs == 0 or done == config.epochs or stop:
                best = metrics if complete and metrics else {}
                self.checkpoints.save(step, fetch(state), best, {})
            if stop:
                self.checkpoints.wait()
                self.preemption.stop(step)
        self.checkpoints.wait()
        return metrics or self.run_.evaluate(state, self.test_constants)

    def _shrink(self, state: TrainState, step: int) -> TrainState:
        """The state of networks without the filters that never return; they are `run_`'s now."""
        left, smaller, said = shrinking.shrink(self.run_, fetch(state))
        say(said)
        self.run_.build(left)
        # Before the checkpoint, which cannot be read without it.
        compactions.write(self.workdir, step, left)
        return self.run_.parallel.replicate(smaller)

    def _inspect(self, state: TrainState, row: dict[str, float], *, others: bool) -> bool:
        """Adds to an epoch's row what the method says of its end.

        Args:
          state: at the end of the epoch.
          row: of the metrics files.
          others: whether other parameters that the method names are evaluated.

        Returns:
          Whether the epoch may be the best one.
        """
        if self.run_.method.epoch_report is None:
            return True
        found = self.run_.method.epoch_report(fetch(state.params), fetch(state.opt_state))
        row |= found.metrics
        for prefix, params in found.other_params.items() if others else ():
            other = state._replace(params=self.run_.parallel.replicate(params))
            metrics = self.run_.evaluate(other, self.test_constants)
            row |= {f"{prefix}{name}": value for name, value in metrics.items()}
        return found.may_be_best

    def _epoch(self, state, epoch: int, step: int):
        """One epoch, or what is left of it; returns the state and the means of its metrics."""
        per_epoch, per_step = self.run_.steps_per_epoch, self.run_.feed.images_per_step
        first = step - epoch * per_epoch
        progress = Progress(epoch + 1, per_epoch * per_step, first * per_step)
        pending, rows, begin = None, [], time.monotonic()
        batches = self.run_.feed.train(epoch, first)
        try:
            for steps, batch in batches:
                state, metrics = self.run_.train_steps(state, self.train_constants, batch)
                # The device works on this dispatch while the host looks at the one before.
                self._collect(rows, pending)
                pending, step = (step, metrics), step + steps
                progress.advance(steps * per_step)
                # At the epoch's end there is a row to write and an evaluation to make first.
                if step < (epoch + 1) * per_epoch and self.preemption.requested(step):
                    self._collect(rows, pending)
                    self.checkpoints.save(step, fetch(state), {}, {})
                    self.checkpoints.wait()
                    self.preemption.stop(step)
            self._collect(rows, pending)
        finally:
            batches.close()
            progress.close()
        means = {name: float(np.mean(np.concatenate([r[name] for r in rows]))) for name in rows[0]}
        row = {f"train/{name}": value for name, value in means.items()}
        images = (per_epoch - first) * per_step
        return state, {
            "step": step,
            "epoch": epoch + 1,
            "learning_rate": float(self.schedule(step - 1)),
            "images_per_second": images / (time.monotonic() - begin),
            **row,
        }

    def _collect(self, rows: list, pending) -> None:
        """Fetches the metrics of a dispatch and refuses those that are not finite."""
        if pending is None:
            return
        first_step, metrics = pending
        metrics = fetch(metrics)
        bad = {name: ~np.isfinite(values) for name, values in metrics.items()}
        steps = [int(flags.argmax()) for flags in bad.values() if flags.any()]
        if steps:
            at = min(steps)
            names = ", ".join(name for name, flags in bad.items() if flags[at])
            good = self.checkpoints.latest_step()
            kept = f"the last good checkpoint is step {good}" if good else "nothing was saved yet"
            where = " in another --workdir" if good else ""
            raise UserError(
                f"not finite at step {first_step + at}: {names}; {kept}; lower "
                f"config.optimizer.learning_rate or add config.optimizer.warm_up_epochs{where}"
            )
        rows.append(metrics)

    def _report(self, row: dict[str, float]) -> None:
        if self.writer is not None:
            self.writer.write(row)
            self.writer.flush()
        tops = [
            f"{n} {100 * row[f'{n}/top1']:.2f}"
            for n in [*network_names(row), "ensemble"]
            if f"{n}/top1" in row
        ]
        shown = f"  top-1 % {'  '.join(tops)}" if tops else ""
        say(
            f"epoch {row['epoch']}/{self.config.epochs}  step {row['step']}  "
            f"lr {row['learning_rate']:.4g}  {row['images_per_second']:.0f} img/s  "
            f"loss {row['train/loss']:.4f}{shown}"
        )
