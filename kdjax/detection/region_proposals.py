"""Region proposals: decoding of a region proposal network's outputs, its targets and losses.

Source: Ren et al. 2015, sections 3.1.1 to 3.1.3, in torchvision's form.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from kdjax.detection import boxes, matching, suppression
from kdjax.detection.regions import LossSums, Proposals, Truths

# The distance at which smooth L1 losses become linear, in torchvision.
BETA = 1 / 9


def propose(
    objectness: jax.Array,
    codes: jax.Array,
    anchors: jax.Array,
    image_size: jax.Array,
    per_level: Sequence[int],
    *,
    before: int,
    after: int,
    threshold: float = 0.7,
    smallest: float = 1e-3,
) -> Proposals:
    """The proposals of one image.

    The best anchors of every level are decoded and clipped to the image; non-maximum suppression is
    applied to each level; the best proposals of all levels are returned. They have no gradient.

    Args:
      objectness: `[A]` logits.
      codes: `[A, 4]`.
      anchors: `[A, 4]`.
      image_size: `[2]` height and width without padding.
      per_level: number of anchors of every level.
      before: largest number of candidates per level.
      after: largest number of proposals.
      threshold: overlap above which a proposal is suppressed.
      smallest: smallest side of a proposal in pixels.

    Returns:
      `Proposals` of `min(after, candidates)` entries.
    """
    objectness, codes = jax.lax.stop_gradient((objectness, codes))
    anchors = jnp.asarray(anchors, codes.dtype)
    width = min(before, max(per_level))
    indices_by_level, real, start = [], [], 0
    for count in per_level:
        _, indices = jax.lax.top_k(objectness[start : start + count], min(before, count))
        missing = width - indices.size
        indices_by_level.append(jnp.pad(indices + start, (0, missing)))
        real.append(jnp.arange(width) < width - missing)
        start += count
    chosen, valid = jnp.stack(indices_by_level), jnp.stack(real)  # [levels, width]
    candidates = boxes.clip(boxes.decode(codes[chosen], anchors[chosen]), image_size)
    valid &= boxes.has_sides(candidates, smallest)
    scores = jax.nn.sigmoid(objectness[chosen])
    suppress = jax.vmap(suppression.non_maximum_suppression, in_axes=(0, 0, 0, None))
    kept = suppress(candidates, scores, valid, threshold)
    indices, valid = suppression.best(scores.ravel(), kept.ravel(), after)
    return Proposals(candidates.reshape(-1, 4)[indices], scores.ravel()[indices], valid)


def targets(
    anchors: jax.Array, truths: Truths, *, high: float = 0.7, low: float = 0.3
) -> tuple[jax.Array, jax.Array]:
    """The targets of the anchors `[A, 4]` of one image.

    Returns:
      Labels `[A]`: 1 object, 0 background, -1 neither; and codes `[A, 4]`, 0 for all but objects.
    """
    quality = boxes.iou(truths.boxes, anchors)
    matches = matching.match(quality, truths.valid, high=high, low=low, low_quality_matches=True)
    codes = boxes.encode(truths.boxes[jnp.maximum(matches, 0)], anchors)
    is_object = matches >= 0
    labels = jnp.where(is_object, 1, jnp.where(matches == matching.BACKGROUND, 0, -1))
    return labels, jnp.where(is_object[:, None], codes, 0)


def loss_sums(
    objectness: jax.Array,
    codes: jax.Array,
    target_codes: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
) -> LossSums:
    """Binary cross entropy, and smooth L1 of the positives, summed over one image's samples.

    Args:
      objectness: `[A]` logits.
      codes: `[A, 4]`.
      target_codes: `[A, 4]`.
      positive: `[A]`, sampled anchors that are objects.
      negative: `[A]`, sampled anchors that are background.
    """
    sampled = positive | negative
    entropy = optax.sigmoid_binary_cross_entropy(objectness, positive.astype(objectness.dtype))
    distances = smooth_l1(codes, target_codes).sum(-1)
    return LossSums(
        jnp.where(sampled, entropy, 0).sum(), jnp.where(positive, distances, 0).sum(), sampled.sum()
    )


def smooth_l1(values: jax.Array, target_values: jax.Array, beta: float = BETA) -> jax.Array:
    """The smooth L1 loss of every element: quadratic below a distance of `beta`, linear above.

    Source: Girshick 2015, equation 3.
    """
    distance = jnp.abs(values - target_values)
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
