"""The records of one image in a detector: truths, proposals, samples, detections, losses."""

from __future__ import annotations

from typing import NamedTuple

import jax


class Truths(NamedTuple):
    """The objects of an image, padded.

    Attributes:
      boxes: `[G, 4]`; zeros where padded.
      labels: `[G]` classes from 1 on; 0 is the background.
      valid: `[G]`, which entries are objects.
    """

    boxes: jax.Array
    labels: jax.Array
    valid: jax.Array


class Proposals(NamedTuple):
    """Regions that may hold objects, by decreasing score.

    Attributes:
      boxes: `[P, 4]`.
      scores: `[P]` probabilities.
      valid: `[P]`.
    """

    boxes: jax.Array
    scores: jax.Array
    valid: jax.Array


class Samples(NamedTuple):
    """The regions of a box head's loss.

    Attributes:
      boxes: `[S, 4]`.
      labels: `[S]` classes; 0 is the background.
      targets: `[S, 4]`, codes of the ground truths; zeros for the background.
      truths: `[S]` indices of the ground truths; 0 for the background.
      added: `[S]`, which regions are ground truths themselves.
      valid: `[S]`.
    """

    boxes: jax.Array
    labels: jax.Array
    targets: jax.Array
    truths: jax.Array
    added: jax.Array
    valid: jax.Array


class Detections(NamedTuple):
    """The detections in an image, by decreasing score.

    Attributes:
      boxes: `[D, 4]`.
      scores: `[D]` probabilities.
      labels: `[D]` classes from 1 on.
      valid: `[D]`.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    valid: jax.Array


class LossSums(NamedTuple):
    """The losses of a classifier and of a box regressor, summed over samples.

    Attributes:
      classification: `[]`.
      regression: `[]`.
      count: `[]`, the number of samples, by which both are divided.
    """

    classification: jax.Array
    regression: jax.Array
    count: jax.Array  # type: ignore[assignment]  # of tuples it is a method
