"""A config made into data, method, optimizer and compiled functions."""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax import data, methods
from kdjax.data import feeding
from kdjax.errors import UserError
from kdjax.models import Compaction
from kdjax.parallel import AXIS, Parallel, fetch
from kdjax.training import optimizers, teachers
from kdjax.training.step import TrainState, evaluation_step, init_state, train_step

_LEAST = {
    "epochs": 1,
    "steps_per_dispatch": 0,
    "evaluation.every_epochs": 1,
    "checkpoint.every_epochs": 1,
}


class Run:
    """A config made into data, method, optimizer and functions, compiled when first called.

    Args:
      config: see `kdjax.config`.
      workdir: where a teacher that is trained first is found.
      with_teacher: False puts a network without weights in the place of a trained teacher. That
        will do to look at batches, not to train or evaluate.
      compactions: which filters are left of networks that were made smaller, by 'network_i', whose
        weights come from a checkpoint; None for networks as they start.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path | None = None,
        *,
        with_teacher: bool = True,
        compactions: Mapping[str, Compaction] | None = None,
    ):
        self.config = config
        self.workdir = workdir
        _check_settings(config)
        feeding.check_settings(config.data)
        self.parallel = Parallel(config.parallel)
        _check_batch(config.batch_size, self.parallel)
        dataset = data.load(config)
        most = config.steps_per_dispatch or feeding.automatic_steps(dataset, config)
        self.feed = feeding.Feed(config, dataset, self.parallel, most)
        self.steps_per_epoch = self.feed.steps_per_epoch
        self.train_labels = dataset.train.labels
        self.stand_in = None
        if not with_teacher and methods.needs_teacher(config):
            self.stand_in = teachers.weightless(config, dataset.num_classes)
        self.image_shape = dataset.image_shape
        self.num_classes = dataset.num_classes
        self.prepare = feeding.train_input(
            dataset,
            config.data.augmentation,
            views=config.data.views,
            policy_names=config.data.policies,
        )
        self.prepare_test = feeding.test_input(dataset)
        self.build(compactions)

    def build(self, compactions: Mapping[str, Compaction] | None) -> None:
        """Makes method, optimizer and functions, for networks of which these filters are left."""
        if compactions is None:
            self.compactions = methods.starting_compactions(self.config, self.num_classes)
        else:
            self.compactions = dict(compactions)
        self.method = methods.create(
            teachers.resolved(self.config, self.workdir),
            num_classes=self.num_classes,
            axis_name=AXIS,
            train_labels=self.train_labels,
            teacher=self.stand_in,
            compactions=compactions,
        )
        self.tx = self.method.optimizer(optimizers.create(self.config, self.steps_per_epoch))
        self.train_steps = self.parallel.map(
            train_step(self.method, self.tx, self.prepare, self.config.seed), donate=True
        )
        self.evaluation_steps = self.parallel.map(
            evaluation_step(self.method, self.prepare_test, self.num_classes)
        )

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
