"""Which ground truth a box belongs to, and which boxes are learned from."""

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
      valid: `[G]`, which ground truths are none of the padding.
      high: smallest overlap of a match.
      low: overlaps from here to `high` are neither match nor background.
      low_quality_matches: whether a box that overlaps some ground truth as much as no other box
        does belongs to the ground truth that it overlaps the most, however little that is. A
        ground truth without overlap gives so all boxes without overlap their first ground truth,
        as in torchvision.

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
    """At random, `size` boxes of which `positive_fraction` at most are positive.

    `min(int(size * positive_fraction), positives)` positives, and as many negatives as there are
    up to `size` boxes in all.

    Args:
      key: of `jax.random`.
      positive: `[N]` mask.
      negative: `[N]` mask.
      size: number of boxes.
      positive_fraction: of `size`.

    Returns:
      The masks `[N]` of the chosen positives and negatives.
    """
    wanted = jnp.minimum(int(size * positive_fraction), positive.sum())
    keys = jax.random.split(key)
    chosen = _choose(keys[0], positive, wanted, size)
    return chosen, _choose(keys[1], negative, size - wanted, size)


def _choose(key: jax.Array, mask: jax.Array, count: jax.Array, largest: int) -> jax.Array:
    """`count` (at most `largest`) elements of `mask`, or all of them."""
    priority = jnp.where(mask, jax.random.uniform(key, mask.shape), -1)
    _, order = jax.lax.top_k(priority, min(largest, mask.size))
    first = jnp.arange(order.size) < count
    return jnp.zeros(mask.shape, bool).at[order].set(first) & mask


def packed(chosen: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Indices of the elements of a mask `[N]`, in order, in arrays of a fixed size.

    Returns:
      `[min(size, N)]` indices and which of them are elements of the mask.
    """
    order = jnp.argsort(~chosen, stable=True)[:size]
    return order, chosen[order]
