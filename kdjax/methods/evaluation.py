"""How what networks predict is measured over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses


class Evaluation(NamedTuple):
    """What is summed over the images of a split, and what is made of the sums.

    Attributes:
      sums: `(prediction, labels, mask, num_classes) -> {name: array}`, of a batch of one device:
        a prediction as `Method.predict` returns it, the batch's labels, and float `[B]`, 0 where an
        image only fills the batch. The sums are added over batches and devices; integers stay exact
        up to 2**31 - 1 in a dispatch.
      metrics: `(sums, images, class_names) -> {name: number}`, of numpy arrays over the split of
        `images` images. What is not defined is left out.
      accuracy: the metric that tells networks apart, the larger the better.
      label: its name, for people to read.
    """

    sums: Callable[[Any, jax.Array, jax.Array, int], dict[str, jax.Array]]
    metrics: Callable[[Mapping[str, np.ndarray], float, Sequence[str]], dict[str, float]]
    accuracy: str
    label: str

    def of_split(
        self, totals: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> dict[str, float]:
        """'NAME/METRIC' of every name.

        Args:
          totals: 'NAME/SUM' over a split, and 'count', the number of its images.
          class_names: of the data.
        """
        by_name: dict[str, dict[str, np.ndarray]] = {}
        for key, total in totals.items():
            if key != "count":
                name, _, measure = key.rpartition("/")
                by_name.setdefault(name, {})[measure] = total
        return {
            f"{name}/{metric}": value
            for name, sums in by_name.items()
            for metric, value in self.metrics(sums, float(totals["count"]), class_names).items()
        }


def measures(logits: jax.Array, labels: jax.Array, num_classes: int) -> dict[str, jax.Array]:
    """'top1', 'top5' (with more than 5 classes) and 'cross_entropy' of every image, `[B]` each.

    Args:
      logits: `[B, N]`, or joint logits `[B, M, N * M]` of M views of each image, of which view j of
        an image of class y has the label `M * y + j`; their measures are means over the views.
      labels: `[B]` classes.
      num_classes: N.
    """
    if logits.ndim == 3:
        views = logits.shape[1]
        joint = views * labels[:, None] + jnp.arange(views)
        flat = measures(logits.reshape(-1, logits.shape[-1]), joint.ravel(), num_classes)
        return {name: values.reshape(-1, views).mean(1) for name, values in flat.items()}
    target = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    rank = jnp.sum(~(logits <= target), axis=-1)  # so written, what is not finite is wrong
    values = {"top1": (logits.argmax(-1) == labels).astype(jnp.float32)}
    if num_classes > 5:
        values["top5"] = (rank < 5).astype(jnp.float32)
    return values | {"cross_entropy": losses.cross_entropy(logits, labels)}


def _sums(
    logits: jax.Array, labels: jax.Array, mask: jax.Array, num_classes: int
) -> dict[str, jax.Array]:
    values = measures(logits, labels, num_classes)
    return {name: jnp.sum(mask * measured) for name, measured in values.items()}


def _means(
    sums: Mapping[str, np.ndarray], images: float, class_names: Sequence[str]
) -> dict[str, float]:
    del class_names
    return {name: float(total) / images for name, total in sums.items()}


class RowEvaluation(NamedTuple):
    """What is kept of every image of a split, and what is made of all of it.

    For measures that are no function of sums, such as average precision.

    Attributes:
      rows: `prediction -> {name: [B, ...]}`, of a batch of one device.
      metrics: `(rows, split, class_names) -> {name: number}`, of numpy arrays `[images, ...]` in
        the order of the split. What is not defined is left out.
      accuracy: the metric that tells networks apart, the larger the better.
      label: its name, for people to read.
    """

    rows: Callable[[Any], dict[str, jax.Array]]
    metrics: Callable[[Mapping[str, np.ndarray], Any, Sequence[str]], dict[str, float]]
    accuracy: str
    label: str

    def of_split(
        self, kept: Mapping[str, np.ndarray], split: Any, class_names: Sequence[str]
    ) -> dict[str, float]:
        """'NAME/METRIC' of every name.

        Args:
          kept: 'NAME/ROW' of all images of a split.
          split: of the data set.
          class_names: of the data.
        """
        by_name: dict[str, dict[str, np.ndarray]] = {}
        for key, rows in kept.items():
            name, _, row = key.rpartition("/")
            by_name.setdefault(name, {})[row] = rows
        return {
            f"{name}/{metric}": value
            for name, rows in by_name.items()
            for metric, value in self.metrics(rows, split, class_names).items()
        }


# Of images that have one class each.
CLASSIFICATION = Evaluation(_sums, _means, accuracy="top1", label="top-1")
