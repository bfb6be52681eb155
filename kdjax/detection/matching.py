"""Matching of boxes with ground truths, and sampling of boxes for the loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp

BACKGROUND, BETWEEN = -1, -2


def match(
    quality: jax.Array,
    valid: jax.Array,
    *,
    high: float,
    low: float,
    low_quality_matches: bool,
) -> jax.Array:
    """The ground truth of every box, `[N]` int32; `BACKGROUND` or `BETWEEN` where there is none.

    A box belongs to the ground truth that it overlaps the most (the first of equal ones) where
    that overlap is at least `high`; below `low` it is background.

    Args:
      quality: `[G, N]` overlaps of ground truths with boxes.
      valid: `[G]`, which ground truths are not padding.
      high: smallest overlap of a match.
      low: overlaps from here to `high` are neither match nor background.
      low_quality_matches: whether the box with the largest overlap of some ground truth is matched
        even if that overlap is below `high`; it belongs to the ground truth that it overlaps the
        most. As in torchvision, a ground truth that no box overlaps makes all boxes without overlap
        such boxes, and they belong to the first ground truth.

    Source: Ren et al. 2015, section 3.1.2.
    """
    quality = jnp.where(valid[:, None], quality, -1)
    best, matches = quality.max(0), quality.argmax(0).astype(jnp.int32)
    result = jnp.where(best >= high, matches, jnp.where(best >= low, BETWEEN, BACKGROUND))
    if low_quality_matches:
        attained = (quality == quality.max(1, keepdims=True)) & valid[:, None]
        result = jnp.where(attained.any(0), matches, result)
    return jnp.where(valid.any(), result, BACKGROUND)


def sample(
    key: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    size: int,
    positive_fraction: float,
) -> tuple[jax.Array, jax.Array]:
    """Draws `size` boxes at random, a share of `positive_fraction` at most of them positive.

    There are `min(int(size * positive_fraction), positives)` positives; negatives make up the rest,
    as far as there are enough.

    Args:
      key: of the random choice.
      positive: `[N]` mask.
      negative: `[N]` mask.
      size: number of boxes.
      positive_fraction: largest share of positives.

    Returns:
      The masks `[N]` of the chosen positives and negatives.
    """
    wanted = jnp.minimum(int(size * positive_fraction), positive.sum())
    keys = jax.random.split(key)
    chosen = _choose(keys[0], positive, wanted, size)
    return chosen, _choose(keys[1], negative, size - wanted, size)


def _choose(key: jax.Array, mask: jax.Array, count: jax.Array, largest: int) -> jax.Array:
    """Draws `count` elements of a mask, or all if it has fewer; `count` is at most `largest`."""
    priority = jnp.where(mask, jax.random.uniform(key, mask.shape), -1)
    _, order = jax.lax.top_k(priority, min(largest, mask.size))
    first = jnp.arange(order.size) < count
    return jnp.zeros(mask.shape, bool).at[order].set(first) & mask


def packed(chosen: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The indices of the true elements of a mask `[N]`, in order, in an array of fixed size.

    Returns:
      `[min(size, N)]` indices, and a mask of those whose element is true.
    """
    order = jnp.argsort(~chosen, stable=True)[:size]
    return order, chosen[order]
