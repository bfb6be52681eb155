"""Operations on gray levels and colors: one table per image and channel, one lookup.

A pixel becomes `table[level]` (posterize, solarize, invert, equalize, auto-contrast), or a blend
`base + factor * (level - base)` of the image with a base (black, the mean gray, the gray image, the
smoothed image). The products of a blend are tabulated on the host as well, so that no backend fuses
the multiplication and the addition, and all levels are those of Pillow.
"""

import enum

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError

LEVELS = 256
ENTRIES = 2 * LEVELS - 1  # differences of levels, from -255 to 255


class Tone(enum.IntEnum):
    """Kinds of operations: a given table, a table computed from the image, or a blend."""

    TABLE = 0
    EQUALIZE = 1
    AUTO_CONTRAST = 2
    BRIGHTNESS = 3
    CONTRAST = 4
    COLOR = 5
    SHARPNESS = 6


def table_of(levels: np.ndarray) -> np.ndarray:
    """A table of new levels for the levels 0..255: float32 [511], padded with zeros."""
    return np.pad(np.asarray(levels, np.float32), (0, ENTRIES - LEVELS))


def posterize(bits: float) -> np.ndarray:
    """The table [511] that keeps the `bits` highest bits of a level."""
    return table_of(np.arange(LEVELS) & -(2 ** (8 - int(bits))))


def solarize(threshold: float) -> np.ndarray:
    """The table [511] that inverts levels from `threshold` on."""
    levels = np.arange(LEVELS)
    return table_of(np.where(levels < threshold, levels, 255 - levels))


def enhance(factor: float) -> np.ndarray:
    """The table of a blend, float32 [511]: `factor` times the differences -255..255."""
    return np.float32(factor) * np.arange(1 - LEVELS, LEVELS, dtype=np.float32)


def gray(pixels: jax.Array) -> jax.Array:
    """Pillow's luma of int32 [B, H, W, C] as [B, H, W, 1]; the identity for one channel.

    Raises:
      UserError: C is neither 1 nor 3.
    """
    channels = pixels.shape[-1]
    if channels == 1:
        return pixels
    if channels != 3:
        raise UserError(
            f"config.data.policies: images have {channels} channels, operations on colors need 1 "
            "or 3; use cutout or random_erasing only"
        )
    red, green, blue = jnp.split(pixels, 3, axis=-1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def smooth(pixels: jax.Array) -> jax.Array:
    """Pillow's SMOOTH of int32 [B, H, W, C]: 3 x 3 means with center weight 5; borders are kept."""
    height, width = pixels.shape[1:3]
    if min(height, width) < 3:
        return pixels
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    inner = pixels[:, 1:-1, 1:-1]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * inner
    return pixels.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def equalize_tables(pixels: jax.Array) -> jax.Array:
    """Tables of histogram equalization, int32 [B, P, C] -> [B, 256, C].

    As in Pillow, the pixels of the highest level do not count in the step. A channel with fewer
    than 255 other pixels is not changed.
    """
    batch, count, channels = pixels.shape
    images, channel = jnp.arange(batch)[:, None, None], jnp.arange(channels)
    empty = jnp.zeros((batch, LEVELS, channels), jnp.int32)
    histogram = empty.at[images, pixels, channel].add(1, mode="promise_in_bounds")
    highest = pixels.max(axis=1, keepdims=True)
    of_highest = jnp.take_along_axis(histogram, highest, 1, mode="clip")
    step = (count - of_highest) // 255
    below = jnp.cumsum(histogram, axis=1) - histogram
    levels = jnp.arange(LEVELS)[:, None]
    return jnp.where(
        step > 0, jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255), levels
    )


def auto_contrast_tables(pixels: jax.Array) -> jax.Array:
    """Tables that stretch levels to 0 ... 255, int32 [B, P, C] -> [B, 256, C].

    floor(255 (level - lowest) / (highest - lowest)), exactly. Where that quotient is a whole
    number, Pillow's may be one less, by a rounding error of its division.
    """
    lowest, highest = (reduce(axis=1, keepdims=True) for reduce in (pixels.min, pixels.max))
    levels = jnp.arange(LEVELS)[:, None]
    stretched = 255 * (levels - lowest) // jnp.maximum(highest - lowest, 1)
    return jnp.where(highest > lowest, jnp.clip(stretched, 0, 255), levels)


def apply(images: jax.Array, tones: jax.Array, tables: jax.Array) -> jax.Array:
    """Applies to each image the operation of its tone and table.

    Args:
      images: uint8 [B, H, W, C], C = 1 or 3. On one channel, COLOR changes nothing.
      tones: [B] of `Tone`.
      tables: float32 [B, 511], by `table_of` or, for blends, by `enhance`.

    Returns:
      uint8 [B, H, W, C]
    """
    batch, height, width, channels = images.shape
    pixels = images.astype(jnp.int32)
    flat = pixels.reshape(batch, -1, channels)

    def is_(tone: Tone) -> jax.Array:
        return (tones == tone)[:, None, None]

    grays = gray(pixels).reshape(batch, -1, 1)
    area = height * width
    mean = (grays.sum(axis=1, keepdims=True) + area // 2) // area
    base = jnp.where(is_(Tone.CONTRAST), mean, jnp.where(is_(Tone.COLOR), grays, 0))
    base = jnp.where(is_(Tone.SHARPNESS), smooth(pixels).reshape(flat.shape), base)
    zero = jnp.where((tones >= Tone.BRIGHTNESS)[:, None, None], LEVELS - 1, 0)

    def padded(levels: jax.Array) -> jax.Array:
        return jnp.pad(levels, ((0, 0), (0, ENTRIES - LEVELS), (0, 0))).astype(jnp.float32)

    tables = jnp.where(
        is_(Tone.EQUALIZE),
        padded(equalize_tables(flat)),
        jnp.where(is_(Tone.AUTO_CONTRAST), padded(auto_contrast_tables(flat)), tables[..., None]),
    )
    changes = jnp.take_along_axis(tables, flat - base + zero, 1, mode="clip")
    return jnp.clip(base + changes, 0, 255).astype(jnp.uint8).reshape(images.shape)
