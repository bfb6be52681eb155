"""RandAugment."""

import jax

from kdjax.data.policies import draws, magnitudes, operations

NAMES = (
    *("Identity", *magnitudes.GEOMETRIC, *magnitudes.BLENDS),
    *("Posterize", "Solarize", *magnitudes.PLAIN),
)


def rand_augment(
    keys: jax.Array,
    images: jax.Array,
    *,
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
) -> jax.Array:
    """Applies `num_ops` random operations of 14, all at one magnitude.

    Args:
      keys: typed PRNG keys [B].
      images: uint8 [B, H, W, C], C = 1 or 3.
      num_ops: number of operations, drawn uniformly with replacement.
      magnitude: the bin.
      num_magnitude_bins: number of bins.

    Returns:
      uint8 [B, H, W, C]

    References:
      Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space,
      2020; torchvision's `RandAugment` on PIL images (nearest pixels, black outside).
    """
    height, width = images.shape[1:3]
    strengths = magnitudes.moderate(num_magnitude_bins, height, width)
    chosen_strengths = {name: values[[magnitude]] for name, values in strengths.items()}
    rows = operations.signed_rows(NAMES, chosen_strengths, 1)
    table = operations.tabulate(rows, height, width)
    chosen = draws.choose(draws.uniform(keys, num_ops), len(rows))
    for i in range(num_ops):
        images = operations.apply(table, chosen[:, i], images)
    return images
