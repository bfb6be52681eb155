"""Areas, overlaps and the coding of boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Weights of (dx, dy, dw, dh) in the box head.
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# A decoded side is at most 1000 / 16 times the side of its reference.
LARGEST_LOG_RATIO = math.log(1000 / 16)


def area(boxes: jax.Array) -> jax.Array:
    """Areas, `[..., 4] -> [...]`."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of all pairs, `[N, 4], [M, 4] -> [N, M]`.

    The overlap of two boxes without area is 0.
    """
    top_left = jnp.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = jnp.maximum(bottom_right - top_left, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def clip(boxes: jax.Array, image_size: jax.Array) -> jax.Array:
    """Clips boxes `[..., 4]` to an image whose `image_size` `[2]` is height and width."""
    height, width = image_size[0], image_size[1]
    limits = jnp.stack([width, height, width, height]).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits)


def has_sides(boxes: jax.Array, smallest: float) -> jax.Array:
    """Whether width and height are at least `smallest`, `[..., 4] -> [...]`."""
    return (boxes[..., 2:] - boxes[..., :2] >= smallest).all(-1)


def encode(
    truths: jax.Array, references: jax.Array, weights: Sequence[float] = (1, 1, 1, 1)
) -> jax.Array:
    """Encodes `truths` relative to `references`: both `[..., 4] -> [..., 4]`.

    A code is the shift of the center in units of the reference's sides and the logarithms of the
    ratios of the sides, times `weights`. The sides of references are positive. The code of a truth
    without area, such as padding, is 0.

    Source: Girshick et al. 2014, appendix C.
    """
    centers, sides = _centers_and_sides(references)
    target_centers, target_sides = _centers_and_sides(truths)
    real = (target_sides > 0).all(-1, keepdims=True)
    shifts = (target_centers - centers) / sides
    ratios = jnp.log(jnp.where(real, target_sides, sides) / sides)
    codes = jnp.concatenate([shifts, ratios], -1) * jnp.asarray(weights, references.dtype)
    return jnp.where(real, codes, 0)


def decode(
    codes: jax.Array, references: jax.Array, weights: Sequence[float] = (1, 1, 1, 1)
) -> jax.Array:
    """The inverse of `encode`: codes and references that broadcast to `[..., 4]`, to boxes.

    Logarithms of ratios are bounded from above by `log(1000 / 16)`.
    """
    centers, sides = _centers_and_sides(references)
    codes = codes / jnp.asarray(weights, codes.dtype)
    centers = codes[..., :2] * sides + centers
    half = 0.5 * jnp.exp(jnp.minimum(codes[..., 2:], LARGEST_LOG_RATIO)) * sides
    return jnp.concatenate([centers - half, centers + half], -1)


def _centers_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides
