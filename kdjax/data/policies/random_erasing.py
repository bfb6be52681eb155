"""Random erasing."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.policies import draws

ATTEMPTS = 20  # draws of a rectangle until it is smaller than the image, which most are


def random_erasing(
    keys: jax.Array,
    images: jax.Array,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: float = 0.3,
) -> jax.Array:
    """Fills a rectangle of some images with random levels, one for each pixel and channel.

    Random levels are the paper's best variant (RE-R); the other variants fill with one color.

    Args:
      keys: typed PRNG keys [B].
      images: uint8 [B, H, W, C].
      probability: probability that an image is changed.
      area: the smallest and the largest area of the rectangle, as a share of the image's.
      aspect: the range of height / width is [aspect, 1 / aspect].

    Returns:
      uint8 [B, H, W, C]

    References:
      Zhong et al., Random Erasing Data Augmentation, 2020, algorithm 1. As in the authors' code and
      Self-KD-Lib's dataloader/random_erase.py, a rectangle that does not fit is drawn again, and
      its position is then uniform among those where it fits.
    """
    height, width = images.shape[1:3]
    keys, noise_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    numbers = draws.uniform(keys, 3 + 2 * ATTEMPTS)
    draw, position = numbers[:, 0], numbers[:, 1:3]
    parts, ratios = jnp.split(numbers[:, 3:], 2, axis=1)
    parts = height * width * (area[0] + (area[1] - area[0]) * parts)
    ratios = aspect + (1 / aspect - aspect) * ratios
    sides = jnp.stack([jnp.sqrt(parts * ratios), jnp.sqrt(parts / ratios)], axis=-1)
    sides = jnp.round(sides).astype(jnp.int32)  # [B, attempts, (height, width)]
    size = np.array([height, width])
    fits = (sides < size).all(axis=-1)
    first = jnp.argmax(fits, axis=1)[:, None, None]
    side = jnp.take_along_axis(sides, first, 1, mode="clip")[:, 0]
    start = draws.choose(position, size - side + 1)
    erased = (draw < probability) & fits.any(axis=1)
    mask = draws.rectangles(start, side, height, width) & erased[:, None, None, None]
    return jnp.where(mask, draws.levels(noise_keys, images.shape[1:]), images)
