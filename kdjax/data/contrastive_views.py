"""Augmentation of views for self-supervised methods: crop, color jitter, gray scale and blur.

Arithmetic on pixels is in integers, so that a view is bit-identical in all programs and on all
devices.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.images import CONTRASTIVE_AREA
from kdjax.errors import UserError
from kdjax.numerics import total

_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10
_ONE = 256  # the factor of color jitter that changes nothing
_STRENGTH, _HUE = 0.4, 0.1
_JITTERED, _GRAY, _BLURRED = 0.8, 0.2, 0.5  # shares of the images
_SEXTANT = 2**12  # a sixth of the circle of hues
_SIGMAS = np.linspace(0.1, 2.0, 20)  # pixels of images of _SIGMA_SIDE
_SIGMA_SIDE = 224
_BLUR_ONE = 2**12


def view(key: jax.Array, images: jax.Array) -> jax.Array:
    """A random resized crop, followed by `recolored_view`.

    Args:
      key: typed PRNG key.
      images: uint8 [B, H, W, C], C = 1 or 3.

    Returns:
      uint8 [B, H, W, C]

    References:
      Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020, arXiv 2003.04297:
      the augmentation of MoCo v2 without its flip.
    """
    crop_key, key = jax.random.split(key)
    return recolored_view(key, resized_crop(crop_key, images))


def recolored_view(key: jax.Array, images: jax.Array) -> jax.Array:
    """Color jitter, gray scale and blur, each of a random part of the images; shapes as `view`."""
    jitter_key, gray_key, blur_key = jax.random.split(key, 3)
    images = random_gray(gray_key, color_jitter(jitter_key, images))
    return gaussian_blur(blur_key, images)


def resized_crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """A random crop of each image, bilinearly enlarged to the image's size; shapes as `view`.

    The area is uniform in 1/5 ... 1 of the image's, the aspect log-uniform in 3/4 ... 4/3. After
    ten boxes that do not fit, it is the largest central box with an admissible aspect, as by
    torchvision's `RandomResizedCrop`.
    """
    top, left, height, width = _boxes(key, images.shape)
    rows = _resampled(images.astype(jnp.int32), top, height, axis=1)
    both = _resampled(rows, left, width, axis=2)
    one = 4 * images.shape[1] * images.shape[2]
    return ((both + one // 2) // one).astype(jnp.uint8)


def _boxes(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Top, left, height and width of random boxes, int32 `[B]`."""
    count, full_height, full_width, _ = shape
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    tries = (count, _TRIES)
    low, high = CONTRASTIVE_AREA
    area = jax.random.uniform(area_key, tries, minval=low, maxval=high) * full_height * full_width
    low, high = (math.log(value) for value in _ASPECT)
    aspect = jnp.exp(jax.random.uniform(aspect_key, tries, minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    fits = (heights > 0) & (heights <= full_height) & (widths > 0) & (widths <= full_width)
    usual = min(max(full_width / full_height, _ASPECT[0]), _ASPECT[1])
    largest_height = min(full_height, round(full_width / usual))
    largest_width = min(full_width, round(full_height * usual))
    first, any_fits = fits.argmax(axis=1)[:, None], fits.any(axis=1)
    height = jnp.where(any_fits, jnp.take_along_axis(heights, first, 1)[:, 0], largest_height)
    width = jnp.where(any_fits, jnp.take_along_axis(widths, first, 1)[:, 0], largest_width)
    top = jax.random.randint(top_key, (count,), 0, full_height - height + 1)
    left = jax.random.randint(left_key, (count,), 0, full_width - width + 1)
    top = jnp.where(any_fits, top, (full_height - largest_height) // 2)
    left = jnp.where(any_fits, left, (full_width - largest_width) // 2)
    return top, left, height, width


def _resampled(pixels: jax.Array, start: jax.Array, length: jax.Array, axis: int) -> jax.Array:
    """Enlarges `length` pixels from `start` on to the whole axis; int32, times twice its size."""
    size = pixels.shape[axis]
    one = 2 * size
    # Middles of pixels: (out + 1/2) length / size - 1/2, times `one`.
    places = (2 * jnp.arange(size) + 1) * length[:, None] - size
    places = jnp.clip(places, 0, one * (length[:, None] - 1))
    shape = [1, 1, 1, 1]
    shape[0], shape[axis] = pixels.shape[0], size
    before = (start[:, None] + places // one).reshape(shape)
    share = (places % one).reshape(shape)
    after = jnp.minimum(before + 1, size - 1)
    low, high = (jnp.take_along_axis(pixels, place, axis, mode="clip") for place in (before, after))
    return low * (one - share) + high * share


def color_jitter(key: jax.Array, images: jax.Array) -> jax.Array:
    """Brightness, contrast, saturation and hue of 4 of 5 images, in random order; shapes as `view`.

    Factors are uniform in 0.6 ... 1.4, hues turn by up to a tenth of the circle, as torchvision's
    `ColorJitter(0.4, 0.4, 0.4, 0.1)`. Of gray images only brightness and contrast change.
    """
    factor_key, hue_key, order_key, chance_key = jax.random.split(key, 4)
    _check_channels(images)
    count = images.shape[0]
    one = (count, 1, 1, 1)
    low, high = round((1 - _STRENGTH) * _ONE), round((1 + _STRENGTH) * _ONE)
    factors = jax.random.randint(factor_key, (3, *one), low, high + 1)
    turn = round(6 * _HUE * _SEXTANT)
    turns = jax.random.randint(hue_key, one, -turn, turn + 1)
    operations = [
        lambda x: _blend(x, 0, factors[0]),
        lambda x: _blend(x, _mean_gray(x), factors[1]),
    ]
    if images.shape[-1] == 3:
        operations += [
            lambda x: _blend(x, _gray(x), factors[2]),
            lambda x: _turned(x, turns),
        ]
    order = jnp.argsort(jax.random.uniform(order_key, (count, len(operations))), axis=1)

    def operated(place: jax.Array, pixels: jax.Array) -> jax.Array:
        chosen = order[:, place].reshape(one)
        return jnp.select(
            [chosen == number for number in range(len(operations))],
            [operation(pixels) for operation in operations],
        )

    # A loop: XLA would fuse straight-line code so that pixels are computed several times.
    pixels = jax.lax.fori_loop(0, len(operations), operated, images.astype(jnp.int32))
    chance = jax.random.bernoulli(chance_key, _JITTERED, one)
    return jnp.where(chance, pixels.astype(jnp.uint8), images)


def random_gray(key: jax.Array, images: jax.Array) -> jax.Array:
    """Converts a fifth of the images to gray; shapes as `view`."""
    _check_channels(images)
    if images.shape[-1] == 1:
        return images
    chance = jax.random.bernoulli(key, _GRAY, (images.shape[0], 1, 1, 1))
    return jnp.where(chance, _gray(images.astype(jnp.int32)).astype(jnp.uint8), images)


def gaussian_blur(key: jax.Array, images: jax.Array) -> jax.Array:
    """Blurs half of the images; shapes as `view`.

    The standard deviation is one of 20 equally spaced values from 0.1 to 2 pixels for images whose
    shorter side is 224 pixels, and proportional for other sizes: images of 32 pixels stay nearly
    sharp (SimCLR does not blur them).
    """
    sigma_key, chance_key = jax.random.split(key)
    count, height, width, _ = images.shape
    kernels = _kernels(min(height, width))
    number = jax.random.randint(sigma_key, (count,), 0, len(kernels))
    weights = jnp.asarray(kernels)[number].reshape(count, -1, 1, 1, 1)
    pixels, radius = images.astype(jnp.int32), kernels.shape[1] // 2
    for axis in (1, 2):
        padding = [(radius, radius) if dim == axis else (0, 0) for dim in range(4)]
        padded, size = jnp.pad(pixels, padding, mode="edge"), images.shape[axis]
        shifted = (
            jax.lax.slice_in_dim(padded, shift, shift + size, axis=axis)
            for shift in range(2 * radius + 1)
        )
        summed = total(weights[:, shift] * tap for shift, tap in enumerate(shifted))
        pixels = (summed + _BLUR_ONE // 2) // _BLUR_ONE
    chance = jax.random.bernoulli(chance_key, _BLURRED, (count, 1, 1, 1))
    return jnp.where(chance, pixels.astype(jnp.uint8), images)


def _kernels(side: int) -> np.ndarray:
    """int32 `[sigmas, taps]`, of sum `_BLUR_ONE`, for images whose shorter side is `side`."""
    sigmas = _SIGMAS * side / _SIGMA_SIDE
    radius = max(1, math.ceil(3 * sigmas[-1]))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigmas[:, None]) ** 2)
    whole = np.round(_BLUR_ONE * taps / taps.sum(axis=1, keepdims=True)).astype(np.int32)
    whole[:, radius] += _BLUR_ONE - whole.sum(axis=1)
    return whole


def _check_channels(images: jax.Array) -> None:
    if images.shape[-1] not in (1, 3):
        raise UserError(
            f"images of {images.shape[-1]} channels have no colors to change; set another "
            "config.data.augmentation"
        )


def _blend(pixels: jax.Array, other: jax.Array | int, factor: jax.Array) -> jax.Array:
    """Mixes pixels, with weight `factor`, with other pixels, to the nearest level."""
    mixed = factor * pixels + (_ONE - factor) * other
    return jnp.clip((mixed + _ONE // 2) // _ONE, 0, 255)


def _gray(pixels: jax.Array) -> jax.Array:
    """Luma of int32 pixels `[B, H, W, C]` in all C channels, rounded as Pillow rounds it."""
    if pixels.shape[-1] == 1:
        return pixels
    red, green, blue = (pixels[..., i : i + 1] for i in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16
    return jnp.broadcast_to(luma, pixels.shape)


def _mean_gray(pixels: jax.Array) -> jax.Array:
    """The mean luma of each image `[B, 1, 1, 1]`, to the nearest level."""
    area = pixels.shape[1] * pixels.shape[2]
    total = _gray(pixels)[..., :1].sum(axis=(1, 2, 3), keepdims=True)
    return (total + area // 2) // area


def _turned(pixels: jax.Array, turns: jax.Array) -> jax.Array:
    """Turns hues by `turns` of `6 * _SEXTANT`; value and chroma stay."""
    red, green, blue = (pixels[..., i : i + 1] for i in range(3))
    value = pixels.max(axis=-1, keepdims=True)
    chroma = value - pixels.min(axis=-1, keepdims=True)
    part = jnp.select(
        [value == red, value == green], [green - blue, blue - red], default=red - green
    )
    sextant = jnp.select([value == red, value == green], [0, 2], default=4)
    hue = sextant * _SEXTANT + part * _SEXTANT // jnp.maximum(chroma, 1) + turns
    levels = []
    for offset in (5, 3, 1):
        place = (hue + offset * _SEXTANT) % (6 * _SEXTANT)
        falling = jnp.clip(jnp.minimum(place, 4 * _SEXTANT - place), 0, _SEXTANT)
        levels.append(value - (chroma * falling + _SEXTANT // 2) // _SEXTANT)
    return jnp.concatenate(levels, axis=-1)
