"""Cutout."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.policies import draws


def cutout(
    keys: jax.Array,
    images: jax.Array,
    *,
    length: int | None = None,
    fill: int | tuple[int, ...] = 0,
) -> jax.Array:
    """Fills one square of each image with one color.

    The center of the square is uniform over all pixels; the square may extend beyond the image.

    Args:
      keys: typed PRNG keys [B].
      images: uint8 [B, H, W, C].
      length: side in pixels; None for a quarter of the image's shorter side: 8 for images of 32 x
        32, as in the paper for CIFAR-100.
      fill: 0..255, for all channels or one per channel. The paper fills with zero after
        normalization; before it, this is the mean color of the training images.

    Returns:
      uint8 [B, H, W, C]

    References:
      DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
      2017; Self-KD-Lib, dataloader/cutout.py.
    """
    height, width, channels = images.shape[1:]
    length = max(1, min(height, width) // 4) if length is None else length
    middle = draws.choose(draws.uniform(keys, 2), np.array([height, width]))
    hole = draws.rectangles(middle - length // 2, length, height, width)
    color = np.broadcast_to(np.asarray(fill, np.uint8), channels)
    return jnp.where(hole, color, images)
