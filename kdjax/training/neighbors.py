"""Evaluation of methods without classifiers: by the nearest training images.

The networks' embeddings of the whole training split, as it is stored, are computed first; every
image of the test split is then given the class that its nearest ones vote for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kdjax.data import Dataset, preprocessing
from kdjax.data.feed import Feed
from kdjax.errors import UserError
from kdjax.methods import Method, base
from kdjax.methods.base import Batch
from kdjax.methods.evaluation import RowEvaluation
from kdjax.parallel import AXIS, scan
from kdjax.training.rows import gathered, prediction_rows_step, rows_step
from kdjax.training.step import evaluation_step
from kdjax.transfer.knn import knn_probabilities


def embeddings_step(method: Method, prepare: Callable[..., Any]) -> Callable[..., Any]:
    """The per-device function `((params, model_state), constants, batches) -> embedded`.

    `embedded` has 'network_0', ... `[K, B, D]`, 'label' and 'mask' `[K, B]` of the images of all
    devices.

    Raises:
      ValueError: the method has no `embeddings`.
    """
    embed = base.embedder(method)

    def rows_of(variables: Any, constants: Any, batch: Batch) -> dict[str, jax.Array]:
        params, model_state = variables
        images, labels = prepare(constants, batch)
        vectors = embed(params, model_state, images)
        embedded = {name: value.astype(jnp.float32) for name, value in vectors.items()}
        return {**embedded, "label": labels}

    return rows_step(rows_of)


def neighbors_step(
    method: Method, prepare: Callable[..., Any], num_classes: int, *, k: int, temperature: float
) -> Callable[..., Any]:
    """The per-device function `((params, model_state, known), constants, batches) -> sums`.

    The sums run over all images of the batches and all devices: 'count', and 'NAME/top1' of every
    network.

    Args:
      method: whose `embeddings` are compared.
      prepare: of `preprocessing.test_input`.
      num_classes: of the data.
      k: number of neighbors, capped at the number of training images.
      temperature: of their votes.

    Raises:
      ValueError: the method has no `embeddings`.
    """
    embed = base.embedder(method)

    def one_batch(variables: Any, constants: Any, batch: Batch) -> base.Metrics:
        params, model_state, known = variables
        images, labels = prepare(constants, batch)
        sums = {"count": batch["mask"].sum()}
        for name, embedded in embed(params, model_state, images).items():
            votes = knn_probabilities(
                embedded,
                known[name],
                known["label"],
                num_classes=num_classes,
                k=min(k, len(known["label"])),
                temperature=temperature,
            )
            sums[f"{name}/top1"] = jnp.sum(batch["mask"] * (votes.argmax(-1) == labels))
        return sums

    def batches_step(variables: Any, constants: Any, batches: Batch) -> base.Metrics:
        turn = lambda _, batch: (None, one_batch(variables, constants, batch))  # noqa: E731
        _, sums = scan(turn, None, batches)
        return jax.lax.psum(jax.tree.map(jnp.sum, sums), AXIS)

    return batches_step


def known_images(
    embeddings_steps: Callable[..., Any], feed: Feed, variables: Any, split: str
) -> Any:
    """Embeddings `[images, D]` and labels of the training split, numpy arrays.

    Args:
      embeddings_steps: `embeddings_step`, compiled for all devices.
      feed: of the data.
      variables: `(params, model_state)`, on the devices.
      split: that is to be evaluated.

    Raises:
      UserError: it is the training split, whose images are their own nearest neighbors.
    """
    if split == "train":
        raise UserError(
            "split='train': without classifiers, images are told by their nearest training images, "
            "which would be themselves; use split='test'"
        )
    return gathered(embeddings_steps, feed, variables, feed.constants("train"), "train")


def evaluation_steps(
    config: ConfigDict, method: Method, dataset: Dataset
) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """The evaluation step, and the one that embeds the training images that it needs, if any."""
    prepare = preprocessing.test_input(dataset)
    if isinstance(method.evaluation, RowEvaluation):
        return prediction_rows_step(method, prepare), None
    if method.predict is not None:
        return evaluation_step(method, prepare, dataset.num_classes), None
    evaluation = neighbors_step(
        method,
        prepare,
        dataset.num_classes,
        k=config.evaluation.neighbors,
        temperature=config.evaluation.neighbor_temperature,
    )
    return evaluation, embeddings_step(method, prepare)
