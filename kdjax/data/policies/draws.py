"""Random numbers and rectangles of images, from one key per image."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def uniform(keys: jax.Array, count: int) -> jax.Array:
    """`count` numbers in [0, 1) from each key: float32 [B, count]."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,), jnp.float32))(keys)


def choose(numbers: jax.Array, count: ArrayLike) -> jax.Array:
    """Numbers in [0, 1) -> whole numbers in [0, count), equally likely; int32.

    With `count` up to 2**16 the probabilities differ by less than one percent.
    """
    return jnp.floor(numbers * count).astype(jnp.int32)


def levels(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gray levels 0..255 of this shape from each key: uint8 [B, *shape].

        Each 32-bit word gives four levels: `jax.random.bits` of uint8 takes several times as long
        to
    compile.
    """
    size = math.prod(shape)
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 4),), jnp.uint32))(keys)
    levels = jax.lax.bitcast_convert_type(words, jnp.uint8)
    return levels.reshape(len(words), -1)[:, :size].reshape(-1, *shape)


def rectangles(start: jax.Array, sides: jax.Array | int, height: int, width: int) -> jax.Array:
    """Masks of rectangles in images [H, W]: bool [B, H, W, 1].

    Args:
      start: int32 [B, 2], the first row and column, which may be outside the image.
      sides: int32 [B, 2], numbers of rows and columns, or one number for all.
    """
    end = start + sides

    def inside(size: int, axis: int) -> jax.Array:
        places = jnp.arange(size)
        return (places >= start[:, axis, None]) & (places < end[:, axis, None])

    return (inside(height, 0)[:, :, None] & inside(width, 1)[:, None, :])[..., None]
