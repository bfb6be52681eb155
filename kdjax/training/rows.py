"""What is kept of every image of a split, over all devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kdjax.data.feed import Feed
from kdjax.methods import Method, base
from kdjax.methods.base import Batch
from kdjax.methods.evaluation import RowEvaluation
from kdjax.parallel import AXIS, fetch, scan


def rows_step(rows_of: Callable[..., dict[str, jax.Array]]) -> Callable[..., Any]:
    """The per-device function `(variables, constants, batches) -> rows`.

    `rows` has arrays `[K, B, ...]` of the images of all devices, and 'mask' `[K, B]`, 0 on padding.

    Args:
      rows_of: `(variables, constants, batch) -> {name: [b, ...]}`, of one batch of a device.
    """

    def one_batch(variables: Any, constants: Any, batch: Batch) -> dict[str, jax.Array]:
        rows = rows_of(variables, constants, batch) | {"mask": batch["mask"]}
        return jax.lax.all_gather(rows, AXIS, tiled=True)

    def batches_step(variables: Any, constants: Any, batches: Batch) -> dict[str, jax.Array]:
        turn = lambda _, batch: (None, one_batch(variables, constants, batch))  # noqa: E731
        return scan(turn, None, batches)[1]

    return batches_step


def prediction_rows_step(method: Method, prepare: Callable[..., Any]) -> Callable[..., Any]:
    """`rows_step` of what a method with a `RowEvaluation` predicts: 'NAME/ROW'.

    Args:
      method: see `Method.evaluation`.
      prepare: of `preprocessing.test_input`.

    Raises:
      ValueError: the method predicts nothing, or what is measured otherwise.
    """
    predict, evaluation = base.predictor(method), method.evaluation
    if not isinstance(evaluation, RowEvaluation):
        raise ValueError("the method is measured by sums: use `step.evaluation_step`")

    def rows_of(variables: Any, constants: Any, batch: Batch) -> dict[str, jax.Array]:
        params, model_state = variables
        images, _ = prepare(constants, batch)
        return {
            f"{name}/{row}": value
            for name, prediction in predict(params, model_state, images).items()
            for row, value in evaluation.rows(prediction).items()
        }

    return rows_step(rows_of)


def gathered(
    steps: Callable[..., Any], feed: Feed, variables: Any, constants: Any, split: str
) -> dict[str, np.ndarray]:
    """The rows of all images of a split, in its order: numpy arrays `[images, ...]`.

    Args:
      steps: `rows_step`, compiled for all devices.
      feed: of the data.
      variables: what the step takes, on the devices.
      constants: `feed.constants` of the split.
      split: 'train' or 'test'.
    """
    parts = [fetch(steps(variables, constants, batches)) for batches in feed.evaluation(split)]

    def joined(*arrays: np.ndarray) -> np.ndarray:
        return np.concatenate([array.reshape(-1, *array.shape[2:]) for array in arrays])

    rows = jax.tree.map(joined, *parts)
    kept = rows.pop("mask") > 0
    return {name: array[kept] for name, array in rows.items()}
