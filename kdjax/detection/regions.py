"""What the parts of a detector hand on for one image: truths, proposals, samples, detections."""

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
    """Where objects may be, by falling score.

    Attributes:
      boxes: `[P, 4]`.
      scores: `[P]` probabilities.
      valid: `[P]`.
    """

    boxes: jax.Array
    scores: jax.Array
    valid: jax.Array


class Samples(NamedTuple):
    """Regions that a box head learns from.

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
    """What was detected in an image, by falling score.

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
    """Losses of a classifier and of a regressor, summed over samples that they are divided by.

    Attributes:
      classification: `[]`.
      regression: `[]`.
      count: `[]` samples, of all classes.
    """

    classification: jax.Array
    regression: jax.Array
    count: jax.Array
