"""The program of a run: its data, method, optimizer and compiled functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from kdjax.data import preprocessing
from kdjax.data.feed import Feed
from kdjax.errors import UserError
from kdjax.methods import Method, base
from kdjax.methods.evaluation import RowEvaluation
from kdjax.models import Compaction
from kdjax.networks import NetworkSpec, metadata
from kdjax.parallel import Parallel, fetch
from kdjax.training import initialization, neighbors, rows
from kdjax.training.input_images import input_spec
from kdjax.training.step import TrainState, init_state


@dataclasses.dataclass(frozen=True)
class Program:
    """The data, the method, the optimizer, and the compiled training and evaluation steps.

    A program is immutable. Shrinking a network yields a new program, see `with_compactions`.

    Attributes:
      config: see `kdjax.config`.
      parallel: the data-parallel mapping over devices.
      feed: the source of batches.
      prepare: the input function of training, `preprocessing.train_input`.
      rebuild: builds the program of the same run for other compactions.
      compactions: the remaining filters of the networks that have been compacted, by 'network_i'.
      method: the training method.
      tx: its optimizer.
      train_steps: `step.train_step` over all devices, compiled at the first call.
      evaluation_steps: `step.evaluation_step` over all devices, compiled at the first call;
        `neighbors.neighbors_step` for a method without classifiers.
      embeddings_steps: `neighbors.embeddings_step` over all devices; None for a method with
        classifiers.
    """

    config: ConfigDict
    parallel: Parallel
    feed: Feed
    prepare: Callable[..., Any]
    rebuild: Callable[[Mapping[str, Compaction]], Program]
    compactions: Mapping[str, Compaction]
    method: Method
    tx: optax.GradientTransformation
    train_steps: jax.stages.Wrapped
    evaluation_steps: Callable[..., Any]
    embeddings_steps: Callable[..., Any] | None

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps per epoch."""
        return self.feed.steps_per_epoch

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape `(H, W, C)` of the networks' input images."""
        return self.feed.dataset.image_shape

    @property
    def num_classes(self) -> int:
        """The number of classes of the data."""
        return self.feed.dataset.num_classes

    def with_compactions(self, compactions: Mapping[str, Compaction]) -> Program:
        """The program of the same run for networks compacted to the given filters.

        The learning-rate schedule and the data are shared; the step functions are compiled anew.

        Args:
          compactions: the remaining filters, by 'network_i'.
        """
        return self.rebuild(compactions)

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """The specs of the networks, in the form that the method gives them."""
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
        """The metadata saved with every checkpoint: specs, paths of variables, names of classes."""
        state = self.abstract_state()
        described = metadata.describe(
            self.specs,
            state.params,
            state.model_state,
            self.method.variables,
            self.config.evaluation.best,
            self.method.averaged_variables,
        )
        return described | {"class_names": list(self.feed.dataset.class_names)}

    def init_state(self) -> TrainState:
        """The state before the first step, as numpy arrays."""
        initialize = jax.jit(initialization.with_loops(self._traced_init.jaxpr))
        state = initialize(jax.random.key(self.config.seed))
        return fetch(jax.tree.unflatten(jax.tree.structure(self._traced_init.out_info), state))

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the state."""
        return self._abstract_state

    @functools.cached_property
    def _abstract_state(self) -> TrainState:
        shapes = self._traced_init.out_info
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)

    @functools.cached_property
    def _traced_init(self) -> jax.stages.Traced:
        return jax.jit(self._init).trace(jax.random.key(self.config.seed))

    def _init(self, key: jax.Array) -> TrainState:
        return init_state(self.method, self.tx, key, self.image_shape)

    def check_best(self) -> None:
        """Checks that `evaluate` returns the metric `config.evaluation.best`.

        Raises:
          UserError: the method predicts no such metric.
        """
        _, params, model_state, _ = self.abstract_state()
        images: Any = jax.ShapeDtypeStruct((1, *self.image_shape), np.float32)
        if self.feed.dataset.has_objects:
            sizes: Any = jax.ShapeDtypeStruct((1, 2), np.int32)
            images = preprocessing.Canvas(images, sizes)
        predict = self.method.predict or base.embedder(self.method)
        predicted = jax.eval_shape(predict, params, model_state, images)
        names = [f"{name}/{self.accuracy}" for name in ("mean", *predicted)]
        if self.config.evaluation.best not in names:
            raise UserError(
                f"config.evaluation.best={self.config.evaluation.best!r} is unknown; "
                f"use one of {', '.join(names)}"
            )

    def evaluate(
        self, state: TrainState, constants: Any, *, split: str = "test"
    ) -> dict[str, float]:
        """Evaluates a state on a split; methods without classifiers by nearest neighbors.

        Args:
          state: the training state, on the devices.
          constants: `feed.constants` of the split.
          split: 'test', or 'train' for the training images without augmentation.

        Returns:
          The metrics 'NAME/METRIC' of the method's `evaluation` for each of its predictions, and
          the mean accuracy of the single networks, without ensembles: 'mean/top1', or the metric
          `accuracy`. Methods without classifiers have the metric 'top1' only.
        """
        variables: tuple[Any, ...] = (state.params, state.model_state)
        if self.embeddings_steps is not None:
            known = neighbors.known_images(self.embeddings_steps, self.feed, variables, split)
            variables = (*variables, self.parallel.replicate(known))
        evaluation, dataset = self.method.evaluation, self.feed.dataset
        if isinstance(evaluation, RowEvaluation):
            kept = rows.gathered(self.evaluation_steps, self.feed, variables, constants, split)
            metrics = evaluation.of_split(kept, getattr(dataset, split), dataset.class_names)
        else:
            totals = self._totals(variables, constants, split)
            metrics = evaluation.of_split(totals, dataset.class_names)
        single = [
            metrics[f"{name}/{self.accuracy}"] for name in network_names(metrics, self.accuracy)
        ]
        return metrics | {f"mean/{self.accuracy}": float(np.mean(single))}

    def _totals(self, variables: Any, constants: Any, split: str) -> dict[str, np.ndarray]:
        """The sums of `evaluation_step` over a split."""
        totals: dict[str, np.ndarray] = {}
        for batches in self.feed.evaluation(split):
            sums = fetch(self.evaluation_steps(variables, constants, batches))
            sums = jax.tree.map(np.float64, sums)
            totals = jax.tree.map(np.add, totals, sums) if totals else sums
        return totals

    @property
    def accuracy(self) -> str:
        """The metric by which checkpoints are compared, 'top1' for classification."""
        return self.method.evaluation.accuracy


def network_names(metrics: Mapping[str, float], accuracy: str = "top1") -> list[str]:
    """'network_0', 'network_1', ...: the single networks among evaluation metrics."""
    names = (name.removesuffix(f"/{accuracy}") for name in metrics if name.endswith(f"/{accuracy}"))
    return [name for name in names if name.removeprefix("network_").isdigit()]
