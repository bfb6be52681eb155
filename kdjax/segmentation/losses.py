"""Cross entropy of pixels, of which some are ignored."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.data.splits import IGNORED
from kdjax.numerics import at_least_float32


def pixel_weights(
    labels: jax.Array, *, ignored: int = IGNORED, class_weights: Sequence[float] | jax.Array = ()
) -> jax.Array:
    """The weight of every pixel: 0 if it is ignored, otherwise that of its class.

    Args:
      labels: integers `[B, H, W]`.
      ignored: the label of ignored pixels.
      class_weights: `[N]`, or () for a weight of 1 for every class.

    Returns:
      float `[B, H, W]`
    """
    valid = labels != ignored
    if not len(class_weights):
        return valid.astype(jnp.float32)
    weights = at_least_float32(jnp.asarray(class_weights))
    return jnp.where(valid, weights[jnp.where(valid, labels, 0)], 0)


def pixel_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, ignored: int = IGNORED
) -> jax.Array:
    """The cross entropy of every pixel, 0 where it is ignored.

    Source: `torch.nn.functional.cross_entropy(ignore_index=..., reduction='none')`.

    Args:
      logits: `[B, H, W, N]`.
      labels: integers `[B, H, W]`, 0 .. N - 1 or `ignored`.
      ignored: the label of ignored pixels, which get no gradient.

    Returns:
      `[B, H, W]`, in float32 at least.
    """
    logits, valid = at_least_float32(logits), labels != ignored
    chosen = jnp.where(valid, labels, 0)[..., None]
    target = jnp.take_along_axis(logits, chosen, axis=-1)[..., 0]
    return jnp.where(valid, jax.nn.logsumexp(logits, axis=-1) - target, 0)


def weighted_mean(
    values: jax.Array, weights: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """The weighted mean of `values` of a batch that may be spread over several devices.

    The mean of the results over devices is the weighted mean of the values of all devices, also
    where some devices have fewer weighted pixels than others.

    Args:
      values: any shape.
      weights: like `values`.
      axis_name: mapped device axis, or None.

    Returns:
      A scalar; 0 if all weights are 0, where `torch` returns NaN.
    """
    (mean,) = weighted_means([(values, weights)], axis_name=axis_name)
    return mean


def weighted_means(
    pairs: Sequence[tuple[jax.Array, jax.Array]], *, axis_name: str | None = None
) -> list[jax.Array]:
    """`weighted_mean` of several arrays, whose weights are summed over devices at once.

    Args:
      pairs: values and weights, as of `weighted_mean`.
      axis_name: mapped device axis, or None.

    Returns:
      A scalar for every pair.
    """
    totals = jnp.stack([weights.sum() for _, weights in pairs])
    if axis_name is not None:
        totals = jax.lax.pmean(totals, axis_name)
    totals = jnp.where(totals > 0, totals, 1)
    return [
        (values * weights).sum() / total
        for (values, weights), total in zip(pairs, totals, strict=True)
    ]
