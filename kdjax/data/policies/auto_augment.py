"""AutoAugment's policy for CIFAR-10."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.policies import draws, magnitudes, operations

# Two operations each: name, probability, which of ten magnitudes.
SUB_POLICIES = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
BINS = 10


def auto_augment(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Applies one of 25 pairs of operations, each operation with its probability.

    Args:
      keys: typed PRNG keys [B].
      images: uint8 [B, H, W, C], C = 1 or 3.

    Returns:
      uint8 [B, H, W, C]

    References:
      Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, 2019, table 7;
      torchvision's `AutoAugment` with `AutoAugmentPolicy.CIFAR10` on PIL images (nearest pixels,
      black outside).
    """
    height, width = images.shape[1:3]
    strengths = magnitudes.moderate(BINS, height, width)
    rows = [
        row
        for pair in SUB_POLICIES
        for name, _, number in pair
        for row in operations.both_signs(
            name, strengths[name][number] if name in strengths else 0.0
        )
    ]
    identity = len(rows)
    table = operations.tabulate([*rows, ("Identity", 0.0)], height, width)
    probabilities = np.array(
        [[operation[1] for operation in pair] for pair in SUB_POLICIES], np.float32
    )
    numbers = draws.uniform(keys, 5)
    pair = draws.choose(numbers[:, 0], len(SUB_POLICIES))
    done = numbers[:, 1:3] < jnp.asarray(probabilities)[pair]
    signs = draws.choose(numbers[:, 3:5], 2)
    for i in range(2):
        row = 4 * pair + 2 * i + signs[:, i]
        images = operations.apply(table, jnp.where(done[:, i], row, identity), images)
    return images
