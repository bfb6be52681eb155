"""ROIAlign: features of regions, by bilinear interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax import numerics

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a region of 224 x 224 belongs to stride 16
FINEST_LEVEL = 2  # of stride 4


def roi_align(
    features: jax.Array,
    regions: jax.Array,
    output_size: tuple[int, int],
    *,
    scale: float,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> jax.Array:
    """Features of regions of one image, `[H, W, C], [R, 4] -> [R, *output_size, C]`.

    A region is divided into bins; the value of a bin is the mean of interpolated values at
    `sampling_ratio` x `sampling_ratio` points. A point more than one cell outside the map has the
    value 0. The axes are separable: the result is a product with one matrix of weights per axis.
    Regions get no gradient.

    Args:
      features: feature map of the image.
      regions: boxes in pixels of the image.
      output_size: rows and columns of bins.
      scale: cells per pixel.
      sampling_ratio: points per bin and axis; 0 or less: as many as a bin has cells, rounded up.
      aligned: whether cell centers are at half pixels. Otherwise a region is at least one cell.

    Source: He et al. 2017 (Mask R-CNN), section 3.
    """
    regions = jax.lax.stop_gradient(regions)
    rows, columns = (
        axis_weights(regions[:, axis::2], size, bins, scale, sampling_ratio, aligned)
        for axis, size, bins in (
            (1, features.shape[0], output_size[0]),
            (0, features.shape[1], output_size[1]),
        )
    )
    return _weighted(features, rows, columns)


def _weighted(features: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    rows, columns = rows.astype(features.dtype), columns.astype(features.dtype)
    partial = jnp.einsum("rph,hwc->rpwc", rows, features)
    return jnp.einsum("rqw,rpwc->rpqc", columns, partial)


def axis_weights(
    intervals: jax.Array,
    size: int,
    bins: int,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> jax.Array:
    """The weight of each of `size` cells in each bin, along one axis: `[R, bins, size]`.

    Args:
      intervals: `[R, 2]` first and last coordinate of every region, in pixels.
      size: number of cells.
      bins: number of bins.
      scale: as in `roi_align`.
      sampling_ratio: as in `roi_align`.
      aligned: as in `roi_align`.
    """
    start, end = (intervals * scale - (0.5 if aligned else 0)).T
    length = end - start if aligned else jnp.maximum(end - start, 1)
    bin_size = length / bins
    if sampling_ratio > 0:
        counts = jnp.full(length.shape, sampling_ratio)
    else:
        counts = jnp.ceil(bin_size).astype(jnp.int32)
    first = start[:, None] + jnp.arange(bins) * bin_size[:, None]  # [R, bins]
    divisor = jnp.maximum(counts, 1).astype(first.dtype)

    def add(point: jax.Array | int, total: jax.Array) -> jax.Array:
        offset = (point + 0.5) * bin_size / divisor
        weights = _interpolation(first + offset[:, None], size)
        return total + jnp.where((point < counts)[:, None, None], weights, 0)

    total = jnp.zeros((*first.shape, size), first.dtype)
    if sampling_ratio > 0:
        for point in range(sampling_ratio):
            total = add(point, total)
    else:
        total = jax.lax.fori_loop(0, counts.max(), add, total)
    return total / divisor[:, None, None]


def _interpolation(positions: jax.Array, size: int) -> jax.Array:
    """Weights of `size` cells at positions, `[R, bins] -> [R, bins, size]`."""
    inside = (positions >= -1) & (positions <= size)
    distance = jnp.abs(jnp.clip(positions, 0, size - 1)[..., None] - jnp.arange(size))
    return jnp.where(inside[..., None], jnp.maximum(1 - distance, 0), 0)


def region_levels(regions: jax.Array, levels: int) -> jax.Array:
    """The level, among maps of strides 4, 8, ..., of every region: `[R, 4] -> [R]`.

    Source: Lin et al. 2017 (FPN), equation 1; 1e-6 is added to the logarithm, as in torchvision.
    """
    sides = regions[:, 2:] - regions[:, :2]
    side = jnp.sqrt(sides[:, 0] * sides[:, 1])
    level = jnp.floor(CANONICAL_LEVEL + jnp.log2(side / CANONICAL_SIDE) + 1e-6)
    return jnp.clip(level - FINEST_LEVEL, 0, levels - 1).astype(jnp.int32)


def multi_scale_roi_align(
    maps: Sequence[jax.Array],
    regions: jax.Array,
    output_size: tuple[int, int],
    image_height: int,
    sampling_ratio: int = 2,
) -> jax.Array:
    """Features of regions, each from the map of its level: `[R, *output_size, C]`.

    Args:
      maps: `[H, W, C]` of one image, of strides 4, 8, ...
      regions: `[R, 4]` in pixels.
      output_size: rows and columns of bins.
      image_height: of the (padded) image.
      sampling_ratio: as in `roi_align`.
    """
    regions = jax.lax.stop_gradient(regions)
    levels = region_levels(regions, len(maps))
    parts = []
    for number, features in enumerate(maps):
        scale = 2.0 ** round(math.log2(features.shape[0] / image_height))
        rows, columns = (
            axis_weights(regions[:, axis::2], size, bins, scale, sampling_ratio, False)
            for axis, size, bins in (
                (1, features.shape[0], output_size[0]),
                (0, features.shape[1], output_size[1]),
            )
        )
        parts.append(_weighted(features, rows * (levels == number)[:, None, None], columns))
    return numerics.total(parts)
