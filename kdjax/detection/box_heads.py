"""The second stage of a detector: sampling of regions, losses, and decoding of detections.

Source: Girshick 2015, section 2, in torchvision's form.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from kdjax.detection import boxes, matching, suppression
from kdjax.detection.region_proposals import BETA, smooth_l1
from kdjax.detection.regions import Detections, LossSums, Samples, Truths


def sample_regions(
    key: jax.Array,
    proposals: jax.Array,
    valid: jax.Array,
    truths: Truths,
    *,
    size: int = 512,
    positive_fraction: float = 0.25,
    threshold: float = 0.5,
    weights: Sequence[float] = boxes.BOX_WEIGHTS,
) -> Samples:
    """Samples regions of one image for the loss, from proposals and the ground truths themselves.

    Args:
      key: of the random choice.
      proposals: `[P, 4]`.
      valid: `[P]`.
      truths: objects of the image.
      size: number of regions.
      positive_fraction: largest share of them that are objects.
      threshold: smallest overlap at which a region is an object.
      weights: of the codes.

    Returns:
      `Samples` of `min(size, P + G)` regions.
    """
    regions = jnp.concatenate([proposals, truths.boxes])
    valid = jnp.concatenate([valid, truths.valid])
    quality = boxes.iou(truths.boxes, regions)
    matches = matching.match(
        quality, truths.valid, high=threshold, low=threshold, low_quality_matches=False
    )
    positive = (matches >= 0) & valid
    chosen = jnp.logical_or(
        *matching.sample(
            key, positive, valid & ~positive, size=size, positive_fraction=positive_fraction
        )
    )
    indices, valid = matching.packed(chosen, size)
    positive, owners = (positive & chosen)[indices], jnp.maximum(matches[indices], 0)
    regions = jnp.where(valid[:, None], regions[indices], 0)
    references = jnp.where(positive[:, None], regions, jnp.asarray([0, 0, 1, 1], regions.dtype))
    codes = boxes.encode(truths.boxes[owners], references, weights)
    return Samples(
        boxes=regions,
        labels=jnp.where(positive, truths.labels[owners], 0),
        targets=jnp.where(positive[:, None], codes, 0),
        truths=jnp.where(positive, owners, 0),
        added=valid & (indices >= len(proposals)),
        valid=valid,
    )


def loss_sums(
    logits: jax.Array, codes: jax.Array, samples: Samples, beta: float = BETA
) -> LossSums:
    """Cross entropy, and smooth L1 of the objects, summed over one image's samples.

    Args:
      logits: `[S, K]`, class 0 being the background.
      codes: `[S, K, 4]`, or `[S, 1, 4]` where they are the same for all classes.
      samples: the regions that the outputs belong to.
      beta: distance at which the smooth L1 loss becomes linear.
    """
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, samples.labels)
    column = jnp.minimum(samples.labels, codes.shape[1] - 1)
    predicted = jnp.take_along_axis(codes, column[:, None, None], axis=1)[:, 0]
    distances = smooth_l1(predicted, samples.targets, beta).sum(-1)
    positive = samples.valid & (samples.labels > 0)
    return LossSums(
        jnp.where(samples.valid, entropy, 0).sum(),
        jnp.where(positive, distances, 0).sum(),
        samples.valid.sum(),
    )


def detect(
    logits: jax.Array,
    codes: jax.Array,
    regions: jax.Array,
    valid: jax.Array,
    image_size: jax.Array,
    *,
    score: float = 0.05,
    threshold: float = 0.5,
    count: int = 100,
    smallest: float = 1e-2,
    weights: Sequence[float] = boxes.BOX_WEIGHTS,
) -> Detections:
    """The detections of one image.

    Every class of every region is a candidate; non-maximum suppression is applied to each class.

    Args:
      logits: `[R, K]`, class 0 being the background.
      codes: `[R, K, 4]` or `[R, 1, 4]`.
      regions: `[R, 4]`.
      valid: `[R]`.
      image_size: `[2]` height and width without padding.
      score: probability that a detection must exceed.
      threshold: overlap above which a detection is suppressed.
      count: largest number of detections.
      smallest: smallest side of a box in pixels.
      weights: of the codes.

    Returns:
      `Detections` of `min(count, R * (K - 1))` entries.
    """
    scores = jax.nn.softmax(logits)[:, 1:]  # [R, K - 1]
    decoded = boxes.clip(boxes.decode(codes, regions[:, None], weights), image_size)
    decoded = decoded[:, 1:] if codes.shape[1] > 1 else decoded
    decoded = jnp.broadcast_to(decoded, (*scores.shape, 4))
    candidates = valid[:, None] & (scores > score) & boxes.has_sides(decoded, smallest)
    suppress = jax.vmap(suppression.non_maximum_suppression, in_axes=(1, 1, 1, None), out_axes=1)
    kept = suppress(decoded, scores, candidates, threshold)
    indices, valid = suppression.best(scores.ravel(), kept.ravel(), count)
    return Detections(
        decoded.reshape(-1, 4)[indices],
        scores.ravel()[indices],
        indices % scores.shape[1] + 1,
        valid,
    )
