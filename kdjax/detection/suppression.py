"""Greedy non-maximum suppression."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdjax.detection.boxes import iou


def non_maximum_suppression(
    boxes: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    threshold: float,
    groups: jax.Array | None = None,
) -> jax.Array:
    """The boxes that non-maximum suppression keeps, as a mask `[N]`.

    Boxes are visited by decreasing score, those of equal score in their order; a box that is kept
    removes all later boxes that overlap it by more than `threshold`.

    Args:
      boxes: `[N, 4]`.
      scores: `[N]`.
      valid: `[N]`; other boxes are not kept and remove none.
      threshold: intersection over union.
      groups: `[N]` numbers, or None; boxes of different groups do not remove one another.
    """
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    ranked, places = boxes[order], jnp.arange(order.size)
    ranked_groups = None if groups is None else groups[order]

    def visit(i: jax.Array, kept: jax.Array) -> jax.Array:
        # One row of the overlaps at a time: all of them would be the largest array of a detector.
        removed = iou(ranked[i][None], ranked)[0] > threshold
        removed &= places > i
        if ranked_groups is not None:
            removed &= ranked_groups == ranked_groups[i]
        return kept & ~(removed & kept[i])

    kept = jax.lax.fori_loop(0, order.size, visit, valid[order])
    return jnp.zeros_like(valid).at[order].set(kept)


def best(scores: jax.Array, kept: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The indices of the `count` best scores `[N]` of kept boxes, by decreasing score.

    Returns:
      `[min(count, N)]` indices, and a mask of those that are kept boxes.
    """
    _, indices = jax.lax.top_k(jnp.where(kept, scores, -jnp.inf), min(count, scores.size))
    return indices, kept[indices]
