"""Shears, translations and rotations: an inverse matrix and a nearest-pixel lookup per image.

Matrices are made on the host, in double precision, and rounded to 16.16 fixed point as Pillow
rounds them (Geometry.c), so that integer arithmetic on the device selects the same pixels.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def shear_x(slope: float) -> tuple[float, ...]:
    """Shears along x; the top edge stays in place."""
    return (1.0, slope, 0.0, 0.0, 1.0, 0.0)


def shear_y(slope: float) -> tuple[float, ...]:
    """Shears along y; the left edge stays in place."""
    return (1.0, 0.0, 0.0, slope, 1.0, 0.0)


def translate_x(pixels: float) -> tuple[float, ...]:
    """Translates to the right by whole pixels; fractions are dropped."""
    return (1.0, 0.0, -float(int(pixels)), 0.0, 1.0, 0.0)


def translate_y(pixels: float) -> tuple[float, ...]:
    """Translates downwards by whole pixels; fractions are dropped."""
    return (1.0, 0.0, 0.0, 0.0, 1.0, -float(int(pixels)))


def rotate(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """Rotates counter-clockwise about the center of the image, as `PIL.Image.Image.rotate`."""
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    c, f = -cosine * x - sine * y + x, sine * x - cosine * y + y
    return (cosine, sine, c, -sine, cosine, f)


def fixed_point(matrix: tuple[float, ...]) -> np.ndarray:
    """(a, b, c, d, e, f) with x' = a x + b y + c, y' = d x + e y + f -> int32 [6] in 2**-16.

    Coordinates x and y are pixel centers in `matrix`, and pixel numbers in the result.
    """
    a, b, c, d, e, f = matrix
    values = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return np.array([math.floor(value * 65536 + 0.5) for value in values], np.int32)


def sample(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Samples images at the coordinates that their matrices map pixels to; black outside.

    Args:
      images: uint8 [B, H, W, C], sides up to some 10,000 pixels.
      matrices: int32 [B, 6], of `fixed_point`.

    Returns:
      uint8 [B, H, W, C]
    """
    batch, height, width, channels = images.shape
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    a, b, c, d, e, f = (matrices[:, i, None, None] for i in range(6))
    from_x, from_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    place = jnp.where(inside, from_y * width + from_x, 0)
    moved = jnp.take_along_axis(
        images.reshape(batch, -1, channels), place.reshape(batch, -1, 1), 1, mode="clip"
    )
    return jnp.where(inside[..., None], moved.reshape(images.shape), jnp.uint8(0))
