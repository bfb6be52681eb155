"""Images and masks scaled, cropped, padded and mirrored together, on the device.

Source: Chen et al. 2017 (arXiv 1706.05587), section 4; CIRKD dataset/*.py. Scaling is bilinear,
without the antialiasing by which Pillow shrinks images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.data.splits import IGNORED


class Augmentation(NamedTuple):
    """How images and masks are augmented.

    Attributes:
      height, width: of the crops.
      smallest, largest: range of the scale, from which it is drawn uniformly.
      step: 0, or the difference between the scales that are drawn from.
      flip: whether pairs are mirrored left to right, with probability 1/2.
    """

    height: int
    width: int
    smallest: float = 0.5
    largest: float = 2.0
    step: float = 0.0
    flip: bool = True


def augmenter(settings: Augmentation) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """`Method.augment`: `(keys, images, masks, sizes, fill) -> images, masks`.

    An image is scaled as a whole, and a random window of it is cut out. Where it is smaller than
    the window, it is padded at the bottom and to the right: the image with `fill`, the mask with
    `IGNORED`. Masks are scaled by the nearest pixel.
    """
    pair = functools.partial(_augmented, settings)
    return jax.vmap(pair, in_axes=(0, 0, 0, 0, None))


def _augmented(
    settings: Augmentation,
    key: jax.Array,
    image: jax.Array,
    mask: jax.Array,
    size: jax.Array,
    fill: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Augments one image `[H, W, C]` and its mask `[H, W]`."""
    scale_key, place_key, flip_key = jax.random.split(key, 3)
    scaled = jnp.maximum(jnp.round(size * _scale(settings, scale_key)), 1)
    window = jnp.array([settings.height, settings.width])
    room = jnp.maximum(scaled - window, 0)
    first = jnp.floor(jax.random.uniform(place_key, (2,)) * (room + 1))
    first = jnp.minimum(first, room)
    flip = jax.random.bernoulli(flip_key) & settings.flip
    rows = first[0] + jnp.arange(settings.height)
    columns = jnp.arange(settings.width)
    columns = first[1] + jnp.where(flip, settings.width - 1 - columns, columns)
    inside = (rows < scaled[0])[:, None] & (columns < scaled[1])
    ratio = size / scaled
    # Coordinates in the source image, whose pixel centers are at integers.
    y, x = (rows + 0.5) * ratio[0] - 0.5, (columns + 0.5) * ratio[1] - 0.5
    image = _interpolated(image.astype(jnp.float32), y, size[0], axis=0)
    image = _interpolated(image, x, size[1], axis=1)
    mask = mask[_nearest(y, size[0])][:, _nearest(x, size[1])]
    return jnp.where(inside[..., None], image, fill), jnp.where(inside, mask, IGNORED)


def _scale(settings: Augmentation, key: jax.Array) -> jax.Array:
    if not settings.step:
        return jax.random.uniform(key, (), minval=settings.smallest, maxval=settings.largest)
    count = round((settings.largest - settings.smallest) / settings.step) + 1
    return settings.smallest + settings.step * jax.random.randint(key, (), 0, count)


def _nearest(positions: jax.Array, length: jax.Array) -> jax.Array:
    return jnp.clip(jnp.floor(positions + 0.5), 0, length - 1).astype(jnp.int32)


def _interpolated(
    image: jax.Array, positions: jax.Array, length: jax.Array, axis: int
) -> jax.Array:
    """Linear interpolation along an axis, among the first `length` pixels."""
    positions = jnp.clip(positions, 0, length - 1)
    low = jnp.floor(positions).astype(jnp.int32)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    fraction = (positions - low).reshape(shape)
    high = jnp.minimum(low + 1, length - 1)
    return jnp.take(image, low, axis) * (1 - fraction) + jnp.take(image, high, axis) * fraction
