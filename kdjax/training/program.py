"""A config made into data, method, optimizer and compiled functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from kdjax import data, methods
from kdjax.data import preprocessing
from kdjax.data.feed import Feed, automatic_steps
from kdjax.errors import UserError
from kdjax.methods import Method
from kdjax.models import Compaction
from kdjax.networks import NetworkSpec, Normalization, metadata
from kdjax.parallel import AXIS, Parallel, fetch
from kdjax.training import checks, neighbors, optimizers, teachers
from kdjax.training.input_images import input_spec, normalized
from kdjax.training.step import TrainState, init_state, train_step


@dataclasses.dataclass(frozen=True)
class Program:
    """Data, method, optimizer, and the functions that train and evaluate.

    A program never changes: networks that become smaller are another program's, see
    `with_compactions`.

    Attributes:
      config: see `kdjax.config`.
      parallel: how functions are spread over devices.
      feed: the batches.
      prepare: `preprocessing.train_input` of the data.
      create_method: makes `method` from `compactions`.
      compactions: which filters are left of networks that are smaller than their names say, by
        'network_i'.
      method: what is trained.
      tx: its optimizer.
      train_steps: `step.train_step`, compiled for all devices when it is first called.
      evaluation_steps: `step.evaluation_step`, likewise; `neighbors.neighbors_step` of a method
        without classifiers.
      embeddings_steps: `neighbors.embeddings_step`, likewise; None of a method with classifiers.
    """

    config: ConfigDict
    parallel: Parallel
    feed: Feed
    prepare: Callable
    create_method: Callable[[Mapping[str, Compaction] | None], Method]
    compactions: Mapping[str, Compaction]
    method: Method
    tx: optax.GradientTransformation
    train_steps: Callable
    evaluation_steps: Callable
    embeddings_steps: Callable | None

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch."""
        return self.feed.steps_per_epoch

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of the images that networks see."""
        return self.feed.dataset.image_shape

    @property
    def num_classes(self) -> int:
        """Classes of the data."""
        return self.feed.dataset.num_classes

    def with_compactions(self, compactions: Mapping[str, Compaction]) -> Program:
        """The program of the same run for networks of which these filters are left.

        The learning-rate schedule and the data stay where they are; functions are compiled anew.
        """
        return _compiled(self.config, self.parallel, self.feed, self.create_method, compactions)

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """What the networks are, with what the method adds to them."""
        return tuple(
            NetworkSpec(
                name,
                self.num_classes,
                input_spec(self.feed.dataset),
                self.method.form,
                self.compactions.get(f"network_{index}"),
            )
            for index, name in enumerate(self.config.networks)
        )

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """What is kept with every checkpoint: the networks, and where their variables are."""
        state = self.abstract_state()
        return metadata.describe(
            self.specs,
            state.params,
            state.model_state,
            self.method.variables,
            self.config.evaluation.best,
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
        predict = self.method.predict or self.method.embeddings
        predicted = jax.eval_shape(predict, params, model_state, images)
        names = [f"{name}/{self.accuracy}" for name in ("mean", *predicted)]
        if self.config.evaluation.best not in names:
            raise UserError(
                f"config.evaluation.best={self.config.evaluation.best!r} is unknown; "
                f"use one of {', '.join(names)}"
            )

    def evaluate(self, state: TrainState, constants, *, split: str = "test") -> dict[str, float]:
        """What the method's `evaluation` makes of a whole split, and the mean of its accuracies.

        'NAME/METRIC' for everything that the method predicts. The mean, 'mean/top1' for most
        methods, is over the single networks; ensembles are left out of it. Of a method without
        classifiers there is only 'top1', by nearest neighbors.

        Args:
          state: on the devices.
          constants: `feed.constants` of the split.
          split: 'test', or 'train': its images as they are stored, not augmented.
        """
        variables = (state.params, state.model_state)
        if self.embeddings_steps is not None:
            known = neighbors.known_images(self.embeddings_steps, self.feed, variables, split)
            variables = (*variables, self.parallel.replicate(known))
        totals = None
        for batches in self.feed.evaluation(split):
            sums = fetch(self.evaluation_steps(variables, constants, batches))
            sums = jax.tree.map(np.float64, sums)
            totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
        metrics = self.method.evaluation.of_split(totals, self.feed.dataset.class_names)
        single = [
            metrics[f"{name}/{self.accuracy}"] for name in network_names(metrics, self.accuracy)
        ]
        return metrics | {f"mean/{self.accuracy}": float(np.mean(single))}

    @property
    def accuracy(self) -> str:
        """The metric that tells networks apart: 'top1' for most methods."""
        return self.method.evaluation.accuracy


def build(
    config: ConfigDict,
    workdir: Path | None = None,
    *,
    with_teacher: bool = True,
    compactions: Mapping[str, Compaction] | None = None,
    normalization: Normalization | None = None,
) -> Program:
    """The program of a config.

    Args:
      config: see `kdjax.config`.
      workdir: where a teacher that is trained first is found.
      with_teacher: False puts a network without weights in the place of a trained teacher. That
        will do to look at batches, not to train or evaluate.
      compactions: which filters are left of networks that were made smaller, by 'network_i', whose
        weights come from a checkpoint; None for networks as they start.
      normalization: that the networks' weights were trained with, which images get; None for
        networks as they start: that of `config.start` or a frozen backbone, else the data's.

    Raises:
      UserError: settings or data that make no run.
    """
    checks.check(config)
    parallel = Parallel(config.parallel)
    checks.check_batch(config.batch_size, parallel.device_count)
    resolved = teachers.resolved(config, workdir)
    without_teacher = not with_teacher and methods.needs_teacher(config)
    if normalization is None and not without_teacher:
        normalization = methods.starting_normalization(resolved)
    dataset = normalized(data.load(config), normalization, config)
    checks.check_masks(config, dataset.has_masks)
    most_steps = config.steps_per_dispatch or automatic_steps(dataset, config)
    feed = Feed(config, dataset, parallel, most_steps)
    stand_in = None
    if without_teacher:
        stand_in = teachers.abstract_teacher(config, dataset.num_classes)

    def create_method(compactions: Mapping[str, Compaction] | None) -> Method:
        return methods.create(
            resolved,
            num_classes=dataset.num_classes,
            images=input_spec(dataset),
            axis_name=AXIS,
            train_labels=dataset.train.labels,
            teacher=stand_in,
            compactions=compactions,
            schedule=optimizers.learning_rate(config, feed.steps_per_epoch),
        )

    return _compiled(config, parallel, feed, create_method, compactions)


def _compiled(
    config: ConfigDict,
    parallel: Parallel,
    feed: Feed,
    create_method: Callable[[Mapping[str, Compaction] | None], Method],
    compactions: Mapping[str, Compaction] | None,
) -> Program:
    dataset = feed.dataset
    method = create_method(compactions)
    if method.augment is None:
        prepare = preprocessing.train_input(
            dataset,
            config.data.augmentation,
            views=config.data.views,
            policy_names=config.data.policies,
        )
    else:
        prepare = preprocessing.masked_train_input(dataset, method.augment)
    tx = method.optimizer(optimizers.create(config, feed.steps_per_epoch))
    step = train_step(method, tx, prepare, config.seed)
    evaluation, embeddings = neighbors.evaluation_steps(config, method, dataset)
    if compactions is None:
        compactions = methods.starting_compactions(config)
    return Program(
        config=config,
        parallel=parallel,
        feed=feed,
        prepare=prepare,
        create_method=create_method,
        compactions=compactions,
        method=method,
        tx=tx,
        train_steps=parallel.map(step, donate=True),
        evaluation_steps=parallel.map(evaluation),
        embeddings_steps=None if embeddings is None else parallel.map(embeddings),
    )


def network_names(metrics: Mapping[str, float], accuracy: str = "top1") -> list[str]:
    """'network_0', 'network_1', ...: the single networks among evaluation metrics."""
    names = (name.removesuffix(f"/{accuracy}") for name in metrics if name.endswith(f"/{accuracy}"))
    return [name for name in names if name.removeprefix("network_").isdigit()]
