"""TrivialAugment, in its wide form."""

import jax

from kdjax.data.policies import draws, magnitudes, operations
from kdjax.data.policies.rand_augment import NAMES


def trivial_augment(
    keys: jax.Array, images: jax.Array, *, num_magnitude_bins: int = 31
) -> jax.Array:
    """Applies one random operation of 14 at a random magnitude.

    The largest translation is 32 pixels for images of any size, which is a whole CIFAR image.

    Args:
      keys: typed PRNG keys [B].
      images: uint8 [B, H, W, C], C = 1 or 3.
      num_magnitude_bins: magnitudes per operation.

    Returns:
      uint8 [B, H, W, C]

    References:
      Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, 2021;
      torchvision's `TrivialAugmentWide` on PIL images (nearest pixels, black outside).
    """
    height, width = images.shape[1:3]
    strengths = magnitudes.bins(
        num_magnitude_bins,
        shear=0.99,
        translate=(32.0, 32.0),
        degrees=135.0,
        enhance=0.99,
        bits=(8, 6),
    )
    rows = operations.signed_rows(NAMES, strengths, num_magnitude_bins)
    table = operations.tabulate(rows, height, width)
    chosen = draws.choose(draws.uniform(keys, 1)[:, 0], len(rows))
    return operations.apply(table, chosen, images)
