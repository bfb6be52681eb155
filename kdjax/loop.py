"""The loop: epoch after epoch, with evaluation, metrics, checkpoints and preemption."""

import functools
import math
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax import data, feeding, methods, optimizers, teachers, workdirs
from kdjax.checkpoints import Checkpoints
from kdjax.errors import UserError
from kdjax.metrics import MetricsWriter, Progress, say
from kdjax.parallel import AXIS, Parallel, fetch
from kdjax.preemption import Preemption
from kdjax.pretrained import Pretrained, backbone
from kdjax.training import TrainState, evaluation_step, init_state, train_step

_LEAST = {
    "epochs": 1,
    "steps_per_dispatch": 0,
    "evaluation.every_epochs": 1,
    "checkpoint.every_epochs": 1,
}


class Run:
    """A config made into data, method, optimizer and compiled functions."""

    def __init__(self, config: ConfigDict, workdir: Path | None = None):
        self.config = config
        _check_settings(config)
        self.parallel = Parallel(config.parallel)
        _check_batch(config.batch_size, self.parallel)
        dataset = data.load(config)
        most = config.steps_per_dispatch or feeding.automatic_steps(dataset, config.batch_size)
        self.feed = feeding.Feed(config, dataset, self.parallel, most)
        self.steps_per_epoch = self.feed.steps_per_epoch
        self.method = methods.create(
            teachers.resolved(config, workdir),
            num_classes=dataset.num_classes,
            axis_name=AXIS,
            train_labels=dataset.train.labels,
        )
        self.tx = self.method.optimizer(optimizers.create(config, self.steps_per_epoch))
        prepare = feeding.train_input(dataset, config.data.augmentation)
        self.train_steps = self.parallel.map(
            train_step(self.method, self.tx, prepare, config.seed), donate=True
        )
        self.evaluation_steps = self.parallel.map(
            evaluation_step(self.method, feeding.test_input(dataset), dataset.num_classes)
        )
        self.image_shape = dataset.image_shape
        self.num_classes = dataset.num_classes

    def init_state(self) -> TrainState:
        """The state before the first step, as numpy arrays."""
        return fetch(jax.jit(self._init)(jax.random.key(self.config.seed)))

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the state."""
        return jax.eval_shape(self._init, jax.random.key(self.config.seed))

    def _init(self, key):
        return init_state(self.method, self.tx, key, self.image_shape)

    def check_best(self) -> None:
        """Raises `UserError` unless `evaluate` returns the metric `config.evaluation.best`."""
        _, params, model_state, _ = self.abstract_state()
        images = jax.ShapeDtypeStruct((1, *self.image_shape), np.float32)
        predicted = jax.eval_shape(self.method.predict, params, model_state, images)
        names = ["mean/top1", *(f"{name}/top1" for name in predicted)]
        if self.config.evaluation.best not in names:
            raise UserError(
                f"config.evaluation.best={self.config.evaluation.best!r} is unknown; "
                f"use one of {', '.join(names)}"
            )

    def evaluate(self, state: TrainState, constants) -> dict[str, float]:
        """Accuracies and cross entropies over the whole test split, and 'mean/top1'.

        The mean is over the single networks; ensembles are left out of it.
        """
        variables = (state.params, state.model_state)
        totals = None
        for batches in self.feed.test():
            sums = fetch(self.evaluation_steps(variables, constants, batches))
            sums = jax.tree.map(float, sums)
            totals = sums if totals is None else jax.tree.map(float.__add__, totals, sums)
        count = totals.pop("count")
        metrics = {name: total / count for name, total in totals.items()}
        single = [metrics[f"{name}/top1"] for name in network_names(metrics)]
        return metrics | {"mean/top1": float(np.mean(single))}


def network_names(metrics: dict[str, float]) -> list[str]:
    """'network_0', 'network_1', ...: the single networks among evaluation metrics."""
    names = (name.removesuffix("/top1") for name in metrics if name.endswith("/top1"))
    return [name for name in names if name.removeprefix("network_").isdigit()]


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
    with workdirs.locked(workdir):
        return _train(run, workdir)


def _train(run: Run, workdir: Path) -> dict[str, float]:
    config = run.config
    workdirs.claim(workdir, config)
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.best)
    step = 0
    if checkpoints.latest_step() is None:
        state = run.init_state()
    else:
        step, state = checkpoints.restore(run.abstract_state())
        say(f"resumed from step {step} (epoch {step / run.steps_per_epoch:.2f}) of {workdir}")
    writer = MetricsWriter(workdir, step) if jax.process_index() == 0 else None
    with Preemption() as preemption:
        loop = _Loop(run, checkpoints, writer, preemption)
        try:
            return loop.run(run.parallel.replicate(state), step)
        finally:
            if writer is not None:
                writer.close()
            checkpoints.close()


class _Loop:
    """Epoch after epoch; what is here runs on the host between dispatches."""

    def __init__(self, run: Run, checkpoints: Checkpoints, writer, preemption: Preemption):
        self.run_ = run
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
            self._report(row)
            stop = self.preemption.requested(step) and done < config.epochs
            if done % config.checkpoint.every_epochs == 0 or done == config.epochs or stop:
                self.checkpoints.save(step, fetch(state), metrics or {})
            if stop:
                self.checkpoints.wait()
                self.preemption.stop(step)
        self.checkpoints.wait()
        return metrics or self.run_.evaluate(state, self.test_constants)

    def _epoch(self, state, epoch: int, step: int):
        """One epoch, or what is left of it; returns the state and the means of its metrics."""
        per_epoch, batch_size = self.run_.steps_per_epoch, self.config.batch_size
        first = step - epoch * per_epoch
        progress = Progress(epoch + 1, per_epoch * batch_size, first * batch_size)
        pending, rows, begin = None, [], time.monotonic()
        batches = self.run_.feed.train(epoch, first)
        try:
            for steps, batch in batches:
                state, metrics = self.run_.train_steps(state, self.train_constants, batch)
                # The device works on this dispatch while the host looks at the one before.
                self._collect(rows, pending)
                pending, step = (step, metrics), step + steps
                progress.advance(steps * batch_size)
                # At the epoch's end there is a row to write and an evaluation to make first.
                if step < (epoch + 1) * per_epoch and self.preemption.requested(step):
                    self._collect(rows, pending)
                    self.checkpoints.save(step, fetch(state), {})
                    self.checkpoints.wait()
                    self.preemption.stop(step)
            self._collect(rows, pending)
        finally:
            batches.close()
            progress.close()
        means = {name: float(np.mean(np.concatenate([r[name] for r in rows]))) for name in rows[0]}
        row = {f"train/{name}": value for name, value in means.items()}
        images = (per_epoch - first) * batch_size
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


def evaluate(config: ConfigDict, workdir: Path, which: str) -> dict[str, float]:
    """Evaluates a run's 'best' or 'latest' checkpoint on the whole test split."""
    run = Run(config, workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.best, read_only=True)
    like = run.abstract_state()
    step, state = checkpoints.restore(like, which)
    checkpoints.close()
    metrics = run.evaluate(run.parallel.replicate(state), run.feed.constants("test"))
    return {"step": step, "epoch": math.floor(step / run.steps_per_epoch)} | metrics


def evaluate_network(config: ConfigDict, network: Pretrained) -> dict[str, float]:
    """Evaluates a network, without its branches, on the whole test split of `config.data`.

    Raises:
      UserError: the data has another number of classes.
    """
    network = backbone(network)
    config = ConfigDict(config.to_dict())
    config.update(method="cross_entropy", networks=(network.name,), shared_stages=0)
    run = Run(config)
    if run.num_classes != network.num_classes:
        raise UserError(
            f"{network.name} has {network.num_classes} classes, config.data.source="
            f"{config.data.source} has {run.num_classes}"
        )
    variables = network.variables
    params, model_state = (
        {"cohort": {"network_0": variables["params"]}},
        {"batch_stats": {"network_0": variables["batch_stats"]}},
    )
    state = TrainState(np.zeros((), np.int32), params, model_state, ())
    return run.evaluate(run.parallel.replicate(state), run.feed.constants("test"))


def _check_settings(config: ConfigDict) -> None:
    for name, least in _LEAST.items():
        value = functools.reduce(getattr, name.split("."), config)
        if value < least:
            raise UserError(f"config.{name}={value}: must be at least {least}")


def _check_batch(batch_size: int, parallel: Parallel) -> None:
    if batch_size % parallel.device_count:
        count = parallel.device_count
        raise UserError(
            f"config.batch_size={batch_size} is not divisible by the {count} devices of "
            f"{jax.process_count()} process(es); use a multiple of {count}"
        )
